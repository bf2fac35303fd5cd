"""What a schema cannot say, said to the generator.

A request that the schema allows may still be refused for what is in the store: another
tenant's scope, a key that is not there, an algorithm that is not the key's. Requests that
are meant to be accepted are led to what exists, so that they get past that; requests that
are meant to be refused stay exactly as they were generated.
"""

import itertools
import json
import os

import schemathesis
from schemathesis import GenerationMode

with open(os.environ["KMS_STATE"], encoding="utf-8") as state:
    STATE = json.load(state)

SCOPE = STATE["scope"]
CERTIFICATES = iter(STATE["certificates"])
COUNTER = itertools.count()
# Keys that the run itself has made; steps in a key's life are taken on these.
MADE = list(STATE["keys"])
ALIASES = list(STATE["aliases"])
ANCHORS = []
RECEIPTS = list(STATE["receipts"])


def is_whole(case):
    """Whether every part of the request is one that the schema allows."""
    return case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE


@schemathesis.hook
def before_call(context, case, kwargs):
    if not is_whole(case):
        return
    if isinstance(case.body, dict):
        fit_body(case)
    if isinstance(case.query, dict) and "tenant_id" in case.query:
        case.query.update(SCOPE)
        if "key_id" in case.query and MADE:
            case.query["key_id"] = MADE[-1]
    if "from" in (case.query or {}) and case.path.endswith("consistency"):
        fit_sizes(case.query)
    fit_path(case)
    # The schema cannot say that an approval comes in one of two places and not in both.
    if isinstance(case.body, dict) and case.body.get("approval_token") is not None:
        case.headers.pop("X-Approval-Token", None)
    # It cannot say either that the header names the module of the token.
    case.headers.pop("X-Module-Id", None)


def fit_body(case):
    body = case.body
    if "tenant_id" in body:
        body.update(SCOPE)
    use = case.path.removeprefix("/kms/v1/").removesuffix("/batch")
    # An approval has ten characters at least, which is a rule of approvals and no form.
    # Uses need none, and a key that asks for one is not among those of the state.
    if use in ("sign", "verify", "encrypt", "decrypt"):
        body.pop("algorithm", None)
        is_signature = use in ("sign", "verify")
        body["key_id"] = STATE["signer" if is_signature else "sealer"]
        if use == "decrypt":
            for item in body.get("items", [body]):
                item.pop("aad", None)
                item.update(STATE["sealed"])
        return
    # Most steps are approved, so that they are taken.
    if next(COUNTER) % 8:
        body["approval_token"] = "approval-token-123"
    if "key_alias" in body and body["key_alias"]:
        # An alias belongs to one active key at a time.
        body["key_alias"] = f"alias-{next(COUNTER)}"
    if case.path == "/kms/v1/trust-anchors":
        # Which bytes are a certificate that is acceptable, and not there yet, no schema says.
        body["certificate"] = next(CERTIFICATES)
        body["anchor_type"] = "root"


def fit_sizes(query):
    size = STATE["tree_size"]
    query["to"] = int(query.get("to", size)) % size + 1
    query["from"] = int(query["from"]) % (query["to"] + 1)


def fit_path(case):
    for name, known in (
        ("key_id", MADE),
        ("alias", ALIASES),
        ("trust_anchor_id", ANCHORS),
        ("receipt_id", RECEIPTS),
        ("tile", STATE["tiles"]),
    ):
        # Now and then something that is not there.
        if name in case.path_parameters and known and next(COUNTER) % 4:
            case.path_parameters[name] = known[next(COUNTER) % len(known)]
            ends = case.method == "DELETE" or case.path.endswith(("/revoke", "/archive"))
            # What is at its end makes room; the last one stays.
            if ends and name in ("alias", "trust_anchor_id") and len(known) > 1:
                known.remove(case.path_parameters[name])


@schemathesis.deserializer("application/octet-stream")
def deserialize_tile(context, response):
    return response.content.decode("latin-1")


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code != 201:
        return
    made = response.json()
    RECEIPTS.append(made["receipt_id"])
    if "key_id" in made:
        MADE.append(made["key_id"])
    if "trust_anchor_id" in made:
        ANCHORS.append(made["trust_anchor_id"])
