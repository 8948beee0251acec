"""Physical LPIs: priority, configuration caching, withdrawal, tables in memory, moves, synchronisation."""

from __future__ import annotations

import pytest

from cosim.api import ns
from nodes.redistributor.effects import Effects
from nodes.redistributor.tables import changes, intids_of, line_of
from tests.machine.redistributor_bench import CTLR, GICR, INVALLR, INVLPIR, PEND, PROP, STRIDE, Gic

A, B, C = 8192, 8193, 9000


def test_lpi_priority_lies_in_the_nonsecure_half() -> None:
    """With two Security states an LPI of priority p goes to the PE as (p >> 1) | 0x80, group Non-secure 1."""
    gic = Gic()
    gic.config(A, 0xA0)
    gic.send("SetLpi", A)
    assert gic.pes[0].held == (A, 0xD0, 1)


def test_lpi_priority_with_one_security_state_is_that_of_the_table() -> None:
    """With one Security state the priority byte goes to the PE unchanged."""
    gic = Gic(two_security_states=False)
    gic.config(A, 0xA0)
    gic.send("SetLpi", A)
    assert gic.pes[0].held == (A, 0xA0, 1)


def test_an_lpi_is_taken_once_however_often_it_was_set() -> None:
    """Setting a pending LPI again changes nothing: one delivery, and it has no active state, so it can come again."""
    gic = Gic()
    gic.config(A)
    for _ in range(3):
        gic.send("SetLpi", A)
    assert gic.take() == A and gic.take() == 1023
    gic.send("SetLpi", A)
    assert gic.take() == A


def test_one_read_serves_all_that_wait_for_a_line() -> None:
    """LPIs of one 64-byte line that pend together cost two reads at most, and a known one costs none."""
    gic = Gic()
    for intid in range(A, A + 16):
        gic.config(intid)

    async def burst() -> None:
        for intid in range(A, A + 16):
            gic.its.send(0, "SetLpi", intid)

    gic.run(burst())
    assert gic.memory.reads == [(PROP, 64)] * 2
    gic.send("SetLpi", A)
    assert len(gic.memory.reads) == 2
    assert [gic.take() for _ in range(17)] == [*range(A, A + 16), 1023]


def test_inv_makes_a_new_configuration_visible_and_only_inv_does() -> None:
    """A pending LPI stays disabled after software enabled it in memory, until InvLpi."""
    gic = Gic()
    gic.config(A, enable=False)
    gic.send("SetLpi", A)
    gic.config(A)
    gic.send("SetLpi", A)
    assert gic.take() == 1023
    gic.send("InvLpi", A)
    assert gic.take() == A


def test_without_cache_a_new_pend_reads_the_configuration() -> None:
    """With lpi_cache off the byte is read at each SetLpi, without INV."""
    gic = Gic(lpi_cache=False)
    gic.config(A, enable=False)
    gic.send("SetLpi", A)
    gic.config(A)
    gic.send("SetLpi", A)
    assert gic.take() == A


def test_inv_that_disables_withdraws_before_sync_completes() -> None:
    """InvLpi of an LPI that the PE holds and software disabled: after SYNC there is nothing to acknowledge."""
    gic = Gic()
    gic.config(A)
    gic.send("SetLpi", A)
    assert gic.holds()
    gic.config(A, enable=False)

    async def invalidate() -> object:
        gic.its.send(0, "InvLpi", A)
        await gic.its.sync()
        return gic.pes[0].held

    assert gic.run(invalidate()) is None
    gic.config(A)
    gic.send("InvLpi", A)
    assert gic.take() == A


def test_inv_while_the_configuration_is_being_read_reads_it_again() -> None:
    """An InvLpi that crosses the read of the byte makes it be read again, so that the old value is not kept."""
    gic = Gic()
    gic.config(A, enable=False)

    async def race() -> None:
        gic.its.send(0, "SetLpi", A)
        await gic.its.sleep(ns(90))  # memory was read at 80 ns, the data is on its way
        gic.config(A)
        gic.its.send(0, "InvLpi", A)
        await gic.its.sync()

    gic.run(race())
    assert gic.take() == A


def test_invall_covers_every_physical_lpi() -> None:
    """InvAll makes new configuration of all pending LPIs visible."""
    gic = Gic()
    for intid in (A, C):
        gic.config(intid, enable=False)
        gic.send("SetLpi", intid)
        gic.config(intid)
    gic.send("InvAll")
    assert sorted(gic.take() for _ in range(2)) == [A, C]


@pytest.mark.parametrize("register", [INVLPIR, INVALLR])
def test_invalidation_by_register(register: int) -> None:
    """GICR_INVLPIR and GICR_INVALLR do what INV and INVALL do."""
    gic = Gic()
    gic.config(A, enable=False)
    gic.send("SetLpi", A)
    gic.config(A)
    gic.write(register, A if register == INVLPIR else 0, 8)
    assert gic.take() == A


def test_clear_withdraws_what_the_pe_holds_before_sync_completes() -> None:
    """ClearLpi, SYNC: the CPU interface no longer has the LPI."""
    gic = Gic()
    gic.config(A)
    gic.send("SetLpi", A)

    async def clear() -> object:
        gic.its.send(0, "ClearLpi", A)
        await gic.its.sync()
        return gic.pes[0].held

    assert gic.run(clear()) is None
    assert gic.take() == 1023


def race_clear(set_again: bool) -> Gic:
    """ClearLpi meets an Activate on its way; then perhaps SetLpi before that Activate has arrived."""
    gic = Gic()
    gic.config(A)
    gic.send("SetLpi", A)

    async def race() -> None:
        now = gic.its.now
        gic.its.send(0, "ClearLpi", A)
        if set_again:
            gic.its.send(0, "SetLpi", A)
        assert now == gic.its.now

    async def take() -> None:
        # ClearLpi arrives at the redistributor in 20 ns, its Clear at the PE in 25: the PE takes the LPI at 18.
        await gic.pes[0].sleep(ns(18))
        gic.pes[0].take()

    gic.also("pe0", take())
    gic.run(race())
    assert gic.pes[0].taken == [A]
    return gic


def test_activate_that_crosses_clear_counts_and_leaves_nothing_behind() -> None:
    """An LPI that was acknowledged while ClearLpi was under way was taken; it is not delivered a second time."""
    gic = race_clear(set_again=False)
    assert gic.take() == 1023 and gic.rds[0].effects.idle


def test_pend_after_clear_is_not_lost_to_the_old_activate() -> None:
    """An LPI set again after its clear is delivered, though the Activate of the first one arrives later."""
    gic = race_clear(set_again=True)
    assert gic.take() == A and gic.take() == 1023


def test_lpis_out_of_range_or_while_disabled_are_counted() -> None:
    """SetLpi of an LPI beyond the ID bits, or with EnableLPIs 0, is dropped with a count."""
    gic = Gic()
    gic.send("SetLpi", 1 << 16)
    gic.write(CTLR, 0)
    gic.send("SetLpi", A)
    assert gic.rds[0].count["lpis_dropped"] == 2


def test_disabling_lpis_writes_the_pending_table_before_rwp_ends() -> None:
    """EnableLPIs 1 to 0: RWP lasts until memory has the pending bits; then the PE holds no LPI."""
    gic = Gic()
    for intid in (A, B, C):
        gic.config(intid)
        gic.send("SetLpi", intid)

    first, later = gic.write_and_watch(CTLR, 0, CTLR, ns(300))
    assert first & 9 == 8 and later & 9 == 0
    assert all(gic.memory.pending_bit(PEND, intid) for intid in (A, B, C))
    assert [len(data) for _, data in gic.memory.writes] == [128]  # only the lines that changed, neighbours together
    assert gic.take() == 1023


def test_enabling_lpis_reads_the_pending_table_unless_ptz() -> None:
    """With PTZ=0 all pending bits that software wrote are delivered; with PTZ=1 memory is not even read."""
    gic = Gic()
    assert gic.memory.reads == []
    intids = list(range(A, A + 256))
    gic.write(CTLR, 0)
    for intid in intids:
        gic.config(intid)
        gic.memory.set_pending_bit(PEND, intid)
    gic.run(gic.enable_lpis(0, ptz=False))
    assert gic.memory.reads[:2] == [(PEND + 1024, 3072), (PEND + 4096, 4096)]
    gic.pes[0].auto = True
    gic.take()
    assert sorted(gic.pes[0].taken) == intids


def test_clear_during_the_table_read_wins_over_the_table() -> None:
    """A ClearLpi that comes while the pending table is being read clears the table's bit too."""
    gic = Gic()
    gic.config(A)
    gic.config(B)
    gic.write(CTLR, 0)
    gic.memory.set_pending_bit(PEND, A)
    gic.memory.set_pending_bit(PEND, B)

    async def enable() -> None:
        await gic.enable_lpis(0, ptz=False)
        gic.its.send(0, "ClearLpi", A)
        await gic.its.sync()

    gic.run(enable())
    assert gic.take() == B and gic.take() == 1023


def test_sync_waits_for_the_configuration_read() -> None:
    """SyncAck to a SetLpi comes after the configuration was read and the LPI offered."""
    gic = Gic()
    gic.config(A)

    async def timed() -> int:
        start = gic.its.now
        gic.its.send(0, "SetLpi", A)
        await gic.its.sync()
        return gic.its.now - start

    assert gic.run(timed()) >= 2 * ns(20) + 2 * ns(60)


def test_move_takes_pending_along() -> None:
    """MoveLpi moves the pending state to the other redistributor before SYNC completes, and away from the PE that holds it."""
    gic = Gic(2)
    gic.config(A)
    gic.send("SetLpi", A)
    assert gic.holds()

    async def move() -> None:
        gic.its.send(0, "MoveLpi", A, 1)
        await gic.its.sync()

    gic.run(move())
    assert gic.take() == 1023
    assert gic.take(1) == A and gic.take(1) == 1023


def test_move_all_moves_everything_pending() -> None:
    """MoveAll moves all pending LPIs; both PEs moving to each other at once do not wait for each other for ever."""
    gic = Gic(2)
    for n, intid in enumerate((A, B, C)):
        gic.config(intid)
        gic.send("SetLpi", intid, rd=n % 2)

    async def move() -> None:
        gic.its.send(0, "MoveAll", 1)
        gic.its.send(1, "MoveAll", 0)
        await gic.its.sync(0)
        await gic.its.sync(1)

    gic.run(move())
    assert sorted([gic.take(1), gic.take(1)]) == [A, C] and gic.take(0) == B


def test_lpi_that_was_acknowledged_first_does_not_move() -> None:
    """MoveLpi of an LPI that the PE takes before the withdrawal reaches it: one delivery, at the old PE."""
    gic = Gic(2)
    gic.config(A)
    gic.send("SetLpi", A)

    async def take() -> None:
        await gic.pes[0].sleep(ns(18))
        gic.pes[0].take()

    async def move() -> None:
        gic.its.send(0, "MoveLpi", A, 1)
        await gic.its.sync()

    gic.also("pe0", take())
    gic.run(move())
    assert gic.pes[0].taken == [A] and gic.take(1) == 1023


def test_unreadable_table_is_counted_and_disables() -> None:
    """A bus error while reading configuration leaves the LPI disabled, counted and logged."""
    gic = Gic(boot=False)
    gic.run(gic._boot())
    gic.memory.bus.serve(None, None)
    gic.send("SetLpi", A)
    assert gic.take() == 1023 and gic.rds[0].count["table_faults"] == 1


def test_pending_lines_round_trip() -> None:
    """Pieces written back turn the stored table into the present one, and only changed lines are among them."""
    stored, pending = {8192, 8200, 20000}, {8200, 8704, 20000}
    table = bytearray(8192)
    for line in range(128):
        table[line * 64 : line * 64 + 64] = line_of(stored, line)
    pieces = changes(stored, pending)
    assert pieces == [(1024, line_of(pending, 16) + line_of(pending, 17))]
    for offset, data in pieces:
        table[offset : offset + len(data)] = data
    assert intids_of(bytes(table[1024:]), 8192) == pending


def test_effects_wait_for_what_is_open_now_only() -> None:
    """A waiter needs the tokens that were open when it came, not later ones."""
    effects, order = Effects(), []
    first = effects.begin()
    effects.after(lambda: order.append("waiter"))
    second = effects.begin()
    effects.end(first)
    assert order == ["waiter"] and not effects.idle
    effects.end(second)
    effects.after(lambda: order.append("at once"))
    assert order == ["waiter", "at once"] and effects.idle


def test_stride_between_redistributors() -> None:
    """The second redistributor's RD_base lies one stride on."""
    gic = Gic(2)
    assert gic.run(gic.its.bus.read(GICR + STRIDE + 8, 8)) >> 8 & 0xFFFF == 1
