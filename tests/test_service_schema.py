"""The service against its own schema: requests that fit it and requests that do not, and every answer as the schema says."""
import os

from conftest import ROOT
from hypothesis import HealthCheck, given, settings
import pytest
import schemathesis
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as of_schema

from aml_miner.config.model_config import load_config
from aml_miner.service.app import make_app
from aml_miner.service.batch_scoring import ScoringSettings
from aml_miner.service.core import ServiceSettings
from aml_miner.service.keys import add_key
from aml_miner.testing.tiny_batch import tiny_batch

CHECKS = [schemathesis.checks.not_a_server_error, of_schema.status_code_conformance, of_schema.content_type_conformance, of_schema.response_headers_conformance,
          of_schema.response_schema_conformance, of_schema.ignored_auth, of_schema.unsupported_method, of_schema.negative_data_rejection]
KEYS = {}
EXAMPLES = int(os.environ.get("AML_MINER_EXAMPLES", 10))  # of each route and mode


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    KEYS["all"] = add_key(folder / "keys.yaml", "all", "administer")
    app = make_app(ServiceSettings(ROOT / "trained_models", folder / "data", ScoringSettings(load_config().review, no_history=True), folder / "keys.yaml"))
    app.state.service.store.accept(tiny_batch(folder / "sent", "2025-09-03"))
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    app.state.service.work.close()


PATHS = {"/v1/batches": ("get", "post"), "/v1/batches/{batch_id}": ("get",), "/v1/batches/{batch_id}/scores": ("get",),
         "/v1/batches/{batch_id}/rankings": ("get",),
         "/v1/batches/{batch_id}/clusters": ("get",), "/v1/batches/{batch_id}/alerts/{alert_id}/explanation": ("get",), "/v1/score": ("post",),
         "/v1/models": ("get",),
         "/v1/models/reload": ("post",), "/health": ("get",), "/ready": ("get",), "/metrics": ("get",)}


def test_the_schema_has_these_routes_and_no_other(api):
    assert {path: tuple(sorted(methods)) for path, methods in api.raw_schema["paths"].items()} == PATHS


ASKED = [(path, method, mode) for path, methods in PATHS.items() for method in methods for mode in GenerationMode]
NOTHING_TO_GET_WRONG = [(path, "get", GenerationMode.NEGATIVE) for path in ("/health", "/ready")]


@pytest.mark.parametrize("path, method, mode", [asked for asked in ASKED if asked not in NOTHING_TO_GET_WRONG])
def test_every_answer_is_one_of_the_schema(api, path, method, mode):
    operation = api[path][method.upper()]

    @settings(derandomize=True, max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case): case.call_and_validate(headers={"Authorization": f"Bearer {KEYS['all']}"}, checks=CHECKS)

    ask()
