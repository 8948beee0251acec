"""The smmute guest: order of its set-up, accesses of a transaction, console text, and what happens without the interrupt."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from nodes.software.smmute_app import UNMAPPED, Options, dump, parse_options, pattern, result_block
from nodes.software.smmute_driver import Outcome
from tests.machine.smmute_board import BAR2, SmmuteBoard

_ROWS = """\
000: f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff 00
010: 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10
020: 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f 20
030: 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f 30
 ...
0c0: b1 b2 b3 b4 b5 b6 b7 b8 b9 ba bb bc bd be bf c0
0d0: c1 c2 c3 c4 c5 c6 c7 c8 c9 ca cb cc cd ce cf d0
0e0: d1 d2 d3 d4 d5 d6 d7 d8 d9 da db dc dd de df e0
0f0: e1 e2 e3 e4 e5 e6 e7 e8 e9 ea eb ec ed ee ef f0
"""
SECOND_BLOCK = """\
Result:
- transaction          = 2
- status               = 0 Success
- value                = 0x0
- duration             = 2 us
Output buffer:
""" + re.sub(r"([0-9a-f]{2})$", r"\1 ", _ROWS, flags=re.M)
"""As the application prints it: each row of the dump ends with a space."""


def statuses(board: SmmuteBoard) -> list[str]:
    return re.findall(r"^- status +=  ?(.*)$", board.text, re.M)


@pytest.mark.parametrize("wait", ["wfi", "spin"])
def test_ten_transactions(wait: str) -> None:
    """With every MSI delivered, ten blocks with status 0 are printed, one console write each, and nothing about missed MSIs."""
    board = SmmuteBoard(guest_wait=wait).run()
    assert board.off and statuses(board) == ["0 Success"] * 10 and "missed" not in board.text
    assert re.findall(r"^- transaction +=  ?(\d+)$", board.text, re.M) == [str(n) for n in range(1, 11)]
    blocks = [text for text in board.writes if text.startswith("Result:")]
    assert len(blocks) == 10 and all(text.count("Result:") == 1 for text in blocks)
    assert re.sub(r"= \d+ us", "= 2 us", blocks[1]) == SECOND_BLOCK
    assert [re.search("000: (..)", text)[1] for text in blocks] == "00 f1 e2 d3 c4 b5 a6 97 88 79".split()  # type: ignore[index]


def test_console_around_the_blocks() -> None:
    """The probe line, the commands of Arm's page and poweroff frame the results; the machine is then off."""
    board = SmmuteBoard(slot=3, smmute_transactions=1).run()
    before, after = board.text.split("Result:")
    assert before == (
        "smmute 0000:00:03.0: 2x2 pages of 512 frames\n"
        "# mount -t 9p -o trans=virtio hostshare /tmp/\n"
        "# cd /tmp\n"
        "# ./smmute -s 0x100 -n 1\n"
    )
    assert after.endswith("# poweroff\n") and board.off


@pytest.mark.parametrize(("vcpus", "slot"), [(8, 0), (2, 5)])
def test_set_up_order(vcpus: int, slot: int) -> None:
    """Events are mapped and enabled first, MSI-X entries programmed next, unmasked last, and the function opened at the end."""
    board = SmmuteBoard(slot=slot, vcpus=vcpus, smmute_transactions=1).run()
    assert board.log == [
        *["MAPC", "SYNC", "INVALL", "SYNC"],
        *["MAPD", *["MAPTI"] * 8, "SYNC"],
        *["INV"] * 8,
        "SYNC",
        "control 0xc000",
        *["mask"] * 8,
        *["entry"] * 24,
        *["unmask"] * 8,
        "control 0x8000",
    ]
    mapd = next(c for c in board.commands if c.name == "MAPD")
    assert (mapd["device_id"], mapd["size"], mapd["valid"]) == (slot << 3, 2, 1)
    assert board.events == {(slot << 3, k): 8192 + k for k in range(8)} and board.enabled == set(range(8192, 8200))
    assert [board.table[16 * k] for k in range(8)] == [board.translater & 0xFFFF_FFFF] * 8
    assert [board.table[16 * k + 8] for k in range(8)] == list(range(8))
    assert board.config[4] & 6 == 6, "memory space and bus mastering"


def test_translater_is_kvmtools() -> None:
    """With 8 vCPUs the MSI address is 0x3FEE0040, as kvmtool lays out its ITS."""
    board = SmmuteBoard(smmute_transactions=1).run()
    assert board.table[0] == 0x3FEE_0040 and BAR2 + 12 not in board.table


def test_distributor_asks_for_sgis_without_active_state() -> None:
    """The guest sets nASSGIreq while the Distributor is off and keeps it when switching on, as Linux does."""
    board = SmmuteBoard(smmute_transactions=1).run()
    assert [d for _, o, d in board.gicd_writes if o == 0] == [0x100, 0x113]


def test_lpi_tables() -> None:
    """The Redistributor gets a property table with all LPIs disabled, an empty pending table with PTZ, then EnableLPIs."""
    board = SmmuteBoard(smmute_transactions=1).run()
    written = [(o, d) for f, o, d in board.gicr_writes if f == 0 and o < 0x1_0000]
    assert [o for o, _ in written] == [0x70, 0x78, 0x0]
    property_table = written[0][1]
    assert property_table & 0x1F == 15 and written[1][1] >> 62 & 1 and written[2][1] == 1
    at = property_table & 0xFFFF_FFFF_F000
    first = board.memory(at, 16)
    assert first == b"\xa3" * 8 + b"\xa2" * 8


def test_accesses_of_a_transaction() -> None:
    """A transaction programs both halves of its frame, then gives the command, in the driver's order and values."""
    board = SmmuteBoard(smmute_transactions=2).run()
    second = board.posted[15:]
    assert second == [
        (0x1_0000, 1),
        (0x1_000C, 0xFFFF_FFFF),
        (0x00, 1),
        (0x04, 0),
        (0x28, 0x8100_0000),
        (0x30, 0x8100_00FF),
        (0x20, 0x42FF_42FF),
        (0x24, 0),
        (0x38, 1),
        (0x10, 1),
        (0x18, 1),
        (0x1C, 0),
        (0x40, 0x9100_0000),
        (0x48, 0),
        (0x00, 2),
    ]


def test_vectors_go_round() -> None:
    """Transaction k uses vector (k - 1) mod 8."""
    board = SmmuteBoard().run()
    assert [d for o, d in board.posted if o == 0x18] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]


@pytest.mark.parametrize("wait", ["wfi", "spin"])
def test_missed_msi_is_logged_and_polled(wait: str) -> None:
    """When vector 0 is lost, transactions 1 and 9 finish by the 500 ms poll with a log line each, and all ten succeed."""

    class Lossy(SmmuteBoard):
        def msi(self, number: int, vector: int) -> None:
            if vector:
                self.send_msi(vector)

    board = Lossy(guest_wait=wait, slot=2).run()
    assert statuses(board) == ["0 Success"] * 10
    assert re.findall(r"^.*missed.*$", board.text, re.M) == [
        "smmute 0000:00:02.0: missed MSI for transaction 1 (vector 0)",
        "smmute 0000:00:02.0: missed MSI for transaction 9 (vector 0)",
    ]
    durations = [int(us) for us in re.findall(r"duration += (\d+) us", board.text)]
    assert [n + 1 for n, us in enumerate(durations) if us >= 500_000] == [1, 9]


def test_late_interrupt_of_an_earlier_transaction_does_not_complete_a_later_one() -> None:
    """An MSI that comes after its transaction was polled is not taken for the next one on the same vector."""

    class Late(SmmuteBoard):
        def msi(self, number: int, vector: int) -> None:
            if number == 1:
                self.after(500 * 10**9 + 8 * 10**6, lambda: self.send_msi(vector))
            elif number != 9:
                self.send_msi(vector)

    board = Late().run()
    assert re.findall(r"transaction (\d+) \(vector 0\)", board.text) == ["1", "9"]


def test_stale_interrupt_does_not_end_a_running_transaction() -> None:
    """An interrupt of the vector while the engine still runs is not taken for the completion."""

    class Early(SmmuteBoard):
        def after(self, delay: int, fn: Callable[[], None]) -> None:
            super().after(delay, fn)
            super().after(delay // 10, lambda: self.send_msi(0))

    board = Early(smmute_transactions=1).run()
    assert statuses(board) == ["0 Success"] and "missed" not in board.text


def test_slow_engine_is_waited_for() -> None:
    """A transaction that still runs at the poll is not called missed: the driver goes on waiting."""

    class Slow(SmmuteBoard):
        def after(self, delay: int, fn: Callable[[], None]) -> None:
            super().after(delay if delay != 2_000_000 else 700 * 10**9, fn)

    board = Slow(smmute_transactions=1).run()
    assert statuses(board) == ["0 Success"] and "missed" not in board.text


def test_engine_that_never_ends_is_bad_address() -> None:
    """A transaction that never finishes is given up after the polls, with the driver's status 14, and the app stops."""

    class Stuck(SmmuteBoard):
        def engine(self, frame: dict[int, int]) -> int:
            return 2

        def msi(self, number: int, vector: int) -> None:
            pass

    board = Stuck().run()
    assert statuses(board) == ["14 Bad address"] and board.off


def test_faulting_transaction_stops_the_application() -> None:
    """ERROR gives status 5 with the faulting address as value; no further transaction is started; the guest powers off."""

    class Faulting(SmmuteBoard):
        def engine(self, frame: dict[int, int]) -> int:
            if self.started < 3:
                return super().engine(frame)
            frame[0x50] = 0xDEAD_BEE0
            return 0xFFFF_FFFF

    board = Faulting().run()
    assert statuses(board) == ["0 Success", "0 Success", "5 Input/output error"]
    assert "- value                = 0xdeadbee0\n" in board.text and board.started == 3 and board.off


@pytest.mark.parametrize(("fault", "offset"), [("read", 0x28), ("write", 0x40)])
def test_a_fault_on_purpose_is_in_one_transaction(fault: str, offset: int) -> None:
    """-f gives the chosen transaction, and no other, an unmapped address to read from or to write to; the prompt shows it."""
    asked: list[int] = []

    class Watching(SmmuteBoard):
        def engine(self, frame: dict[int, int]) -> int:
            asked.append(frame[offset])
            frame[0x50] = frame[offset]
            return 0xFFFF_FFFF if frame[offset] == UNMAPPED else super().engine(frame)

    board = Watching(smmute_fault=fault, smmute_fault_at=3).run()
    assert asked[-1] == UNMAPPED and UNMAPPED not in asked[:2] and len(asked) == 3
    assert statuses(board) == ["0 Success", "0 Success", "5 Input/output error"]
    assert f"./smmute -s 0x100 -n 10 -f {fault}\n" in board.text and f"= {UNMAPPED:#x}\n" in board.text


def test_refused_transaction_is_invalid_argument() -> None:
    """FRAME_MISCONFIGURED at the read-back is status 22, at once, without waiting for an interrupt."""

    class Refusing(SmmuteBoard):
        def read_back(self) -> int | None:
            return 0xFFFF_FFFE

    board = Refusing().run()
    assert statuses(board) == ["22 Invalid argument"] and board.now < 10**9


def test_wrong_copy_is_found() -> None:
    """An engine that says HALTED but copied wrong data doesn't pass: the app names the first wrong byte and stops."""

    class Wrong(SmmuteBoard):
        def engine(self, frame: dict[int, int]) -> int:
            done = super().engine(frame)
            self.memory(frame[0x40] + 0x21, 1, b"\xee")
            return done

    board = Wrong().run()
    assert statuses(board) == ["0 Success"]
    assert "Error: output buffer must equal the input; byte 0x21 is 0xee\n" in board.text


def test_aborted_msi_is_warned_about() -> None:
    """uctrl.MSI_ABORTED leads to the driver's warning."""

    class Aborting(SmmuteBoard):
        def msi(self, number: int, vector: int) -> None:
            self.frames[0x04] = 1

    board = Aborting(smmute_transactions=1).run()
    assert "smmute 0000:00:01.0: MSI aborted for transaction 1 (vector 0)\n" in board.text


def test_missing_device_crashes_with_its_identity() -> None:
    """Without the device on bus 0 the guest ends with an error that names what it looked for."""
    with pytest.raises(Exception, match="13b5:ff80"):
        SmmuteBoard(slot=40).run()


@pytest.mark.parametrize(
    ("args", "params", "expected"),
    [
        ("", {}, Options(0x100, 10)),
        ("./smmute -s 0x1000 -n 3", {"smmute_size": 8}, Options(0x1000, 3)),
        ("-n 2 -f write", {"smmute_fault_at": 2}, Options(0x100, 2, "write", 2)),
        ("", {"smmute_fault": "read"}, Options(0x100, 10, "read", 1)),
        ("console=ttyS0 --earlycon=uart,mmio,0x1000000", {"smmute_size": 64, "smmute_transactions": 2}, Options(64, 2)),
    ],
)
def test_options(args: str, params: dict[str, object], expected: Options) -> None:
    """Options come from the command line if it has them, else from the parameters; a kernel's command line is no option."""
    assert parse_options(args, params) == expected


@pytest.mark.parametrize("args", ["-s 0", "-s 0x10000001", "-n 0", "-s many", "-f drv"])
def test_wrong_options_are_refused(args: str) -> None:
    """Sizes and counts out of range are errors, not something else that runs."""
    with pytest.raises(ValueError):
        parse_options(args, {})


def test_pattern_and_dump() -> None:
    """Byte i of a pattern is (i - seed) & 0xFF; small buffers are dumped whole with an offset as wide as the size."""
    assert pattern(300, 0xB00F) == bytes((i - 0xB00F) & 0xFF for i in range(300))
    assert dump(bytes(20)) == ["00: " + "00 " * 16, "10: " + "00 " * 4]
    assert len(dump(bytes(128))) == 8 and dump(bytes(129))[4] == " ..."
    assert dump(bytes(0x1000))[0].startswith("0000: ") and dump(bytes(0x1000))[-1].startswith("0ff0: ")


def test_result_block_of_an_error() -> None:
    """The block names errno and value in the application's form."""
    text = result_block(Outcome(4, 5, 0x8000_1000, 12), b"\x01")
    assert text.startswith(
        "Result:\n- transaction          = 4\n- status               = 5 Input/output error\n"
        "- value                = 0x80001000\n- duration             = 12 us\nOutput buffer:\n0: 01 \n"
    )
