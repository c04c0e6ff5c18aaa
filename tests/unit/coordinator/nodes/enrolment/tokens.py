"""Join tokens to redeem, and what is noted of those who could not."""

from covey.coordinator.nodes.enrolment import create_token
from covey.protos import admin_pb2


async def token_for(env, node="alpha", **fields):
    return (await create_token(env, admin_pb2.CreateTokenRequest(node=node, **fields))).token


async def events(env, kind="enrolment-refused"):
    found = await env.store.call(env.store.store.events)
    return [event for event in found if event.kind == kind]
