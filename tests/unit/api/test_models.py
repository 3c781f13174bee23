"""`/models`: the GGUF files, and the model that serves."""

from __future__ import annotations

import pytest

from llmd.errors import Conflict, ModelInvalid
from llmd.store.settings import Selection
from tests.support.gguf_file import ENCODER
from tests.support.service import Service


def select(service: Service, **fields: object) -> tuple[int, str]:
    """Select with the admin's key. Return the status and the error code."""
    return service.code(service.ask("POST", "/models/model", fields, key=service.admin))


def test_models_are_listed_in_the_form_of_both_kinds_of_clients(service: Service) -> None:
    """The list has file names for the seed's clients, and model objects for OpenAI's."""
    service.add_model("a.gguf")
    (service.models / "notes.txt").write_text("no model")
    listed = service.ask("GET", "/models").json
    assert listed["models"] == ["a.gguf", "tiny.gguf"]
    assert listed["object"] == "list"
    modified_at = int((service.models / "a.gguf").stat().st_mtime)
    assert listed["data"][1] == {
        "id": "a.gguf",
        "object": "model",
        "created": modified_at,
        "owned_by": "llmd",
    }
    assert [model["id"] for model in listed["data"]] == ["default", "a.gguf", "tiny.gguf"]
    assert service.ask("GET", "/v1/models").json["data"] == listed["data"]


def test_the_list_says_the_kinds(service: Service) -> None:
    """The list has the kind of each file, and null for a file that is no model."""
    service.add_model("bert.gguf", ENCODER)
    service.add_model("broken.gguf", b"GGUF")
    kinds = {"bert.gguf": "encoder", "broken.gguf": None, "tiny.gguf": "decoder"}
    assert service.ask("GET", "/models").json["kinds"] == kinds


def test_a_model_of_another_kind_is_refused(service: Service) -> None:
    """What generates no text is refused when selected, in a profile, and by a request."""
    service.add_model("bert.gguf", ENCODER)
    assert select(service, model="bert.gguf") == (422, "model_invalid")
    profile = service.ask("PUT", "/profiles/p", {"model": "bert.gguf"}, key=service.admin)
    assert service.code(profile) == (422, "model_invalid")
    body = {"model": "bert.gguf", "messages": [{"role": "user", "content": "hi"}]}
    answer = service.ask("POST", "/v1/chat/completions", body)
    assert service.code(answer) == (400, "model_invalid")
    assert "[models] embedding" in answer.json["message"]
    assert service.engine.switched_to == []


def test_a_profile_may_name_a_model_before_it_is_there(service: Service) -> None:
    """A profile for a file that is unknown or incomplete is stored."""
    service.add_model("part.gguf", b"GGUF")
    for name in ("part.gguf", "later.gguf", ""):
        result = service.ask("PUT", "/profiles/p", {"model": name}, key=service.admin)
        assert result.status_code == 200


def test_a_folder_without_models_is_an_empty_list(service: Service) -> None:
    """Without model files the list of files is empty, and the profiles are still listed."""
    (service.models / "tiny.gguf").unlink()
    listed = service.ask("GET", "/models").json
    assert listed["models"] == []
    assert [model["id"] for model in listed["data"]] == ["default"]


def test_selecting_a_model_and_a_profile_returns_both(service: Service) -> None:
    """Selecting a model and a profile returns both, and the selection is stored."""
    service.add_model("new.gguf")
    service.put_profile("p")
    body = {"model": "new.gguf", "model_config": "p"}
    result = service.ask("POST", "/models/model", body, key=service.admin)
    assert result.status_code == 200
    assert result.json == {"model_status": True, "model": "new.gguf", "profile": "p"}
    assert service.settings.selection() == Selection(model="new.gguf", profile="p")
    assert service.ask("POST", "/answer", {"prompt": "hi"}).json["profile"] == "p"


def test_either_may_be_selected_alone(service: Service) -> None:
    """A model or a profile can be selected alone. The other stays."""
    service.add_model("new.gguf")
    service.put_profile("p")
    for body in ({"model": "new.gguf"}, {"model_config": "p"}):
        result = service.ask("POST", "/models/model", body, key=service.admin)
        assert result.status_code == 200
    assert service.settings.selection() == Selection(model="new.gguf", profile="p")


def test_a_wrong_selection_changes_nothing(service: Service) -> None:
    """A wrong selection is refused, and the current model keeps serving."""
    service.add_model("broken.gguf", b"GGUF")
    assert select(service, model="none.gguf") == (404, "model_not_found")
    assert select(service, model="../x.gguf") == (404, "model_not_found")
    assert select(service, model_config="none") == (404, "profile_not_found")
    assert select(service, model="broken.gguf") == (422, "model_invalid")
    assert select(service) == (422, "invalid_field")
    assert select(service, model=None, model_config=None) == (422, "invalid_field")
    assert select(service, model="tiny.gguf", typo="x") == (422, "invalid_field")
    assert service.settings.selection() == Selection()
    assert service.engine.model == "tiny.gguf"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Conflict("another model is being loaded"), (409, "conflict")),
        (ModelInvalid("it could not be loaded"), (422, "model_invalid")),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused(
    service: Service, error: Conflict | ModelInvalid, code: tuple[int, str]
) -> None:
    """A model that cannot be loaded is an error, and the selection stays."""
    service.engine.switch_error = error
    assert select(service, model="tiny.gguf") == code
    assert service.settings.selection() == Selection()


def test_a_selection_that_cannot_be_stored_is_refused(service: Service) -> None:
    """A selection that cannot be stored is a 507, and the old model keeps serving."""
    service.add_model("new.gguf")
    service.ask("GET", "/auth", key=service.admin)
    service.db.is_full = True
    assert select(service, model="new.gguf") == (507, "store_full")
    assert service.engine.model == "tiny.gguf"
