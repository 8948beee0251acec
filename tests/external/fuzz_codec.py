"""Malformed frames for the Python codec: any bytes are a frame or a WireError.

python -m tests.external.fuzz_codec COUNT SEED
python -m tests.external.fuzz_codec --seeds      what is mutated, as hex, for tests/external/csa_fuzz.c
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from cosim.attach.plan import AttachPlan, PlanError
from cosim.core.codec import WireError, decode, unpack_records

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
_HEADS = bytes.fromhex("007f808f909fa0bfc0c1c4c6c7cfd3d9dbdcdddfe0ff")


def seeds() -> list[bytes]:
    """Frames, blobs and a plan that are right."""
    frames = json.loads((VECTORS / "frames.json").read_text())
    attach = json.loads((VECTORS / "attach.json").read_text())
    texts = [entry["hex"] for entry in frames["frames"] + frames["blobs"]]
    texts += [attach["plan"], attach["hello"], attach["welcome"]]
    texts += [
        step[key] for step in attach["session"] for key in ("grant", "deliver", "done", "bye", "report") if key in step
    ]
    return [bytes.fromhex(text) for text in texts]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Up to five changes of single bytes, cuts and insertions."""
    out = bytearray(data)
    for _ in range(chance.randrange(6)):
        if not out:
            break
        at = chance.randrange(len(out))
        which = chance.randrange(6)
        if which == 0:
            out[at] = chance.randrange(256)
        elif which == 1:
            out[at] ^= 1 << chance.randrange(8)
        elif which == 2:
            out[at] = chance.choice(_HEADS)
        elif which == 3:
            del out[at:]
        elif which == 4:
            del out[at]
        else:
            out.insert(at, chance.randrange(256))
    return bytes(out)


def fuzz(count: int, seed: int) -> tuple[int, int]:
    """Try `count` inputs; (accepted, refused). Anything but a result, WireError or PlanError is raised."""
    chance = random.Random(seed)
    corpus = seeds()
    accepted = 0
    for _ in range(count):
        data = mutate(chance.choice(corpus), chance)
        try:
            if data[:4] == b"CSA1":
                decode(data)
            elif data[:1] == b"\x9c":
                AttachPlan.from_msgpack(data)
            else:
                unpack_records(data)
        except (WireError, PlanError):
            continue
        accepted += 1
    return accepted, count - accepted


if __name__ == "__main__":
    if sys.argv[1:] == ["--seeds"]:
        sys.stdout.write("".join(f"{seed.hex()}\n" for seed in seeds()))
        sys.exit()
    total, start = int(sys.argv[1]), int(sys.argv[2])
    sys.stdout.write("{} accepted, {} refused\n".format(*fuzz(total, start)))
