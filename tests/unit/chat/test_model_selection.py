"""The selected model and profile, at the start and after a change."""

from __future__ import annotations

import pytest

from llmd.chat.model_selection import ModelSelector
from llmd.engine.model import Model
from llmd.errors import (
    Conflict,
    InvalidField,
    LlmdError,
    ModelInvalid,
    StoreFull,
    UnknownModel,
    UnknownProfile,
)
from llmd.store.settings import Selection
from tests.support.fake_engine import FakeEngine
from tests.support.gguf_file import ENCODER, ENCODER_DECODER, RERANKER
from tests.support.service import Service


def select(service: Service, model: str | None, profile: str | None) -> Selection:
    """Select a model and a profile as the admin."""
    return service.selector.select(model, profile, actor="boss")


def started(service: Service, default_model: str = "") -> str | None:
    """Start a new selector. Return the name of the model that it loads."""
    service.engine.started_with.clear()
    service.make_selector(default_model).start()
    names = [model.name for model in service.engine.started_with]
    return names[0] if names else None


def test_the_start_takes_selected_then_the_profiles_then_default_then_first(
    service: Service,
) -> None:
    """The first of these sources that names a model decides."""
    for name in ("b.gguf", "c.gguf", "d.gguf"):
        service.add_model(name)
    service.add_model("a.gguf")
    assert started(service) == "a.gguf"
    assert started(service, "b.gguf") == "b.gguf"
    service.put_profile("default", model="c.gguf")
    assert started(service, "b.gguf") == "c.gguf"
    service.settings.select(model="d.gguf", profile="default", actor="cli", now=0)
    assert started(service, "b.gguf") == "d.gguf"


def test_the_start_names_the_file_of_the_model(service: Service) -> None:
    """The engine gets the name and the path of the model."""
    service.selector.start()
    [model] = service.engine.started_with
    assert model == Model(name="tiny.gguf", path=str(service.models / "tiny.gguf"))


def test_a_model_selected_without_its_profile_still_starts(service: Service) -> None:
    """If the selected profile does not exist, the default model is loaded."""
    service.add_model("b.gguf")
    with service.db.write() as tx:
        tx.exec_driver_sql("UPDATE profiles SET deleted_at = 1")
    assert started(service, "b.gguf") == "b.gguf"


def test_an_empty_folder_is_the_reason_why_there_is_no_model(service: Service) -> None:
    """The reason for the lack of a model says how to add one."""
    (service.models / "tiny.gguf").unlink()
    assert started(service) is None
    assert "llmd model add" in service.engine.reason


@pytest.mark.parametrize("name", ["gone.gguf", "broken.gguf"])
def test_a_selected_model_that_cannot_be_loaded_is_the_reason(service: Service, name: str) -> None:
    """If the selected model cannot be loaded, no other one is loaded in its place."""
    service.add_model("broken.gguf", b"GGUF and no more")
    service.settings.select(model=name, profile="default", actor="cli", now=0)
    assert started(service) is None
    assert name in service.engine.reason


def test_a_choice_is_stored_with_the_switch(service: Service) -> None:
    """The model and the profile are stored and returned."""
    service.add_model("new.gguf")
    service.put_profile("p")
    selection = select(service, "new.gguf", "p")
    assert selection == Selection(model="new.gguf", profile="p") == service.settings.selection()
    assert service.engine.switched_to == [
        Model(name="new.gguf", path=str(service.models / "new.gguf"))
    ]


def test_a_profile_chosen_alone_brings_its_model(service: Service) -> None:
    """A profile brings its model; a profile without a model keeps the loaded one."""
    service.add_model("new.gguf")
    service.put_profile("with", model="new.gguf")
    service.put_profile("without")
    assert select(service, None, "with") == Selection(model="new.gguf", profile="with")
    assert select(service, None, "without") == Selection(model="new.gguf", profile="without")


def test_a_model_chosen_alone_keeps_the_profile(service: Service) -> None:
    """Selecting a model keeps the selected profile."""
    service.add_model("new.gguf")
    service.put_profile("p")
    select(service, None, "p")
    assert select(service, "new.gguf", None) == Selection(model="new.gguf", profile="p")


def test_a_model_named_goes_before_that_of_the_profile(service: Service) -> None:
    """A named model takes precedence over that of the profile."""
    service.put_profile("p", model="other.gguf")
    assert select(service, "tiny.gguf", "p").model == "tiny.gguf"


def test_a_choice_without_any_model_is_refused(service: Service) -> None:
    """A selection without a model is refused if none is loaded."""
    service.engine.name = None
    with pytest.raises(InvalidField) as refused:
        select(service, None, "default")
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    ("model", "profile", "error"),
    [
        ("none.gguf", None, UnknownModel),
        ("../tiny.gguf", None, UnknownModel),
        (None, "none", UnknownProfile),
        ("tiny.gguf", "none", UnknownProfile),
        ("broken.gguf", None, ModelInvalid),
        ("text.gguf", "p", ModelInvalid),
    ],
)
def test_a_wrong_choice_changes_nothing(
    service: Service, model: str | None, profile: str | None, error: type[LlmdError]
) -> None:
    """An invalid selection loads nothing and changes nothing."""
    service.put_profile("p")
    service.add_model("broken.gguf", b"GGUF and no more")
    service.add_model("text.gguf", b"hello")
    before = service.settings.selection()
    with pytest.raises(error):
        select(service, model, profile)
    assert service.engine.switched_to == []
    assert service.settings.selection() == before


def test_a_choice_that_cannot_be_stored_leaves_the_old_model(service: Service) -> None:
    """If the selection cannot be stored, the old model still serves."""
    service.add_model("new.gguf")
    service.db.is_full = True
    with pytest.raises(StoreFull):
        select(service, "new.gguf", None)
    assert service.engine.model == "tiny.gguf"
    assert service.settings.selection() == Selection()


def test_a_switch_that_fails_leaves_the_old_selection(service: Service) -> None:
    """If the model cannot be loaded, the selection is not stored."""
    service.add_model("new.gguf")
    service.engine.switch_error = Conflict("another model is being loaded")
    with pytest.raises(Conflict):
        select(service, "new.gguf", None)
    assert service.settings.selection() == Selection()


def test_a_reload_starts_a_model_only_where_there_was_none(service: Service) -> None:
    """A reload loads a model only if none is loaded."""
    service.engine.name = None
    service.selector.start_missing()
    [model] = service.engine.started_with
    assert model.name == "tiny.gguf"
    service.engine.name = "tiny.gguf"
    service.selector.start_missing()
    assert len(service.engine.started_with) == 1


@pytest.mark.parametrize("content", [ENCODER, ENCODER_DECODER, RERANKER])
def test_a_model_that_generates_nothing_is_refused(service: Service, content: bytes) -> None:
    """What cannot generate is refused before it is loaded, named or brought by a profile."""
    service.add_model("other.gguf", content)
    service.put_profile("p", model="other.gguf")
    for model, profile in (("other.gguf", None), (None, "p")):
        with pytest.raises(ModelInvalid, match=r"other\.gguf is an? "):
            select(service, model, profile)
    assert service.engine.switched_to == []
    assert started(service, "other.gguf") is None
    assert "other.gguf is a" in service.engine.reason


def test_the_start_passes_over_an_encoder(service: Service) -> None:
    """If no model is named, the first one that generates text is loaded."""
    service.add_model("a.gguf", ENCODER)
    assert started(service) == "tiny.gguf"


def test_a_file_is_checked_again_before_each_load(service: Service) -> None:
    """A file that was replaced by one of another kind is refused when its worker restarts."""
    service.selector.start()
    [model] = service.engine.started_with
    service.add_model("tiny.gguf", ENCODER)
    with pytest.raises(ModelInvalid, match="is an encoder"):
        model.check()


@pytest.mark.parametrize(
    ("content", "words"),
    [(ENCODER, None), (ENCODER_DECODER, "encoder-decoder"), (RERANKER, "reranker")],
)
def test_the_embedding_model_must_make_embeddings(
    service: Service, content: bytes, words: str | None
) -> None:
    """An encoder starts as the embedding model; others are the reason why there is none."""
    service.add_model("other.gguf", content)
    embedder = FakeEngine()
    embedder.name = None
    ModelSelector(
        service.engine,
        service.services.library,
        service.profiles,
        service.settings,
        default_model="",
        embedder=embedder,
        embedding_model="other.gguf",
    ).start()
    assert [model.name for model in embedder.started_with] == ([] if words else ["other.gguf"])
    assert words is None or words in embedder.reason
