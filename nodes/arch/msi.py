"""MSI from the SMMU to an ITS.

The DeviceID is the one that the plan derives from the endpoint's StreamID: no endpoint can choose it, and the ITS accepts
only the ranges that its link lists (attribute ``device_ids``: [[first, last], ...]). The link's attribute ``translater`` is
the physical address of that ITS's GITS_TRANSLATER.
"""

from __future__ import annotations

from cosim.api import PRIORITY_REQUEST, Protocol

MSI = Protocol("msi", 4, [("Msi", PRIORITY_REQUEST, ("device_id", "event_id"))])
