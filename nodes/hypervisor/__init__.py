"""All software at EL2 and above: host bring-up, KVM, VFIO and the VMM, as one coroutine per PE."""
