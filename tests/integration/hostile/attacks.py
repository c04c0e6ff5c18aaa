"""Offers that are wrong in themselves: each makes one for an assignment."""

from __future__ import annotations

from covey.wire.identities.signing import SigningKey
from tests.integration.hostile.node import flipped, part_of, statement_of


def changed(**fields):
    """An offer whose statement differs in some fields, truly signed."""

    def attack(hostile, assignment):
        claim, data = hostile.update(assignment)
        return hostile.offer(claim | fields, data)

    return attack


def changed_part(**fields):
    """An offer whose statement differs in some fields of its part, truly signed."""

    def attack(hostile, assignment):
        claim, data = hostile.update(assignment)
        return hostile.offer(claim | {"parts": [claim["parts"][0] | fields]}, data)

    return attack


def announced(**fields):
    """An offer whose announced file differs from what the statement says."""

    def attack(hostile, assignment):
        claim, data = hostile.update(assignment)
        return hostile.offer(claim, data, parts=[part_of(data, inline=False, **fields)])

    return attack


def wrong_signature(hostile, assignment):
    return hostile.offer(*hostile.update(assignment), signature=bytes(64))


def short_signature(hostile, assignment):
    return hostile.offer(*hostile.update(assignment), signature=b"x")


def signed_with_another_key(hostile, assignment):
    claim, data = hostile.update(assignment)
    signature = SigningKey.generate().sign(statement_of(claim))
    return hostile.offer(claim, data, signature=signature)


def naming_another_key(hostile, assignment):
    claim, data = hostile.update(assignment)
    other = SigningKey.generate()
    claim["key"] = other.key_id
    return hostile.offer(claim, data, signature=other.sign(statement_of(claim)))


def extra_part(hostile, assignment):
    claim, data = hostile.update(assignment)
    claim["parts"].append(claim["parts"][0] | {"name": "buffers"})
    return hostile.offer(claim, data, parts=[part_of(data, inline=False), part_of(data, name="buffers", inline=False)])


def missing_part(hostile, assignment):
    claim, data = hostile.update(assignment)
    return hostile.offer(claim | {"parts": []}, data, parts=[])


def part_not_announced(hostile, assignment):
    return hostile.offer(*hostile.update(assignment), parts=[])


def wrong_size(hostile, assignment):
    _, data = hostile.update(assignment)
    return hostile.offer(*hostile.update(assignment, data[:-4]))


def a_terabyte(hostile, assignment):
    claim, data = hostile.update(assignment)
    claim["parts"][0]["bytes"] = 1 << 40
    return hostile.offer(claim, data, parts=[part_of(data, inline=False, size_bytes=1 << 40)])


def corrupt_inline(hostile, assignment):
    claim, data = hostile.update(assignment)
    part = part_of(data)
    part.data = flipped(data)
    return hostile.offer(claim, data, parts=[part])


def half_inline(hostile, assignment):
    claim, data = hostile.update(assignment)
    part = part_of(data)
    part.data = data[: len(data) // 2]
    return hostile.offer(claim, data, parts=[part])


def garbage(hostile, assignment):
    return hostile.offer(bytes(range(256)) * 4, b"", parts=[])


def deeply_nested(hostile, assignment):
    return hostile.offer(b"[" * 500_000, b"", parts=[])


def two_megabytes(hostile, assignment):
    claim, data = hostile.update(assignment)
    return hostile.offer(claim | {"padding": "x" * (2 << 20)}, data)
