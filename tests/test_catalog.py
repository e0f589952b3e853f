from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from model_world import (
    catalogue_of,
    gguf_bytes,
    isolate,
    model_of,
    put_in_hub_cache,
    sha256,
)

from specrag_native.errors import ConfigError, ModelFileError, ModelNotFoundError
from specrag_native.model_files import catalog, model_dir
from specrag_native.model_files.catalog_entries import ROLES, HubSource, Model, Preparation, load

CAUSAL, BERT = gguf_bytes(), gguf_bytes("bert", causal=False, pooling=1)
REPO = HubSource("someone/toys", "toy.gguf")


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return isolate(monkeypatch, tmp_path)


def use(monkeypatch: pytest.MonkeyPatch, *entries: Model) -> None:
    monkeypatch.setattr(catalog, "catalogue", lambda: catalogue_of(*entries))


def test_every_role_has_a_default_of_that_role() -> None:
    roles = {m.name: m.role for m in catalog.catalogue().model}
    assert [roles[catalog.default(role)] for role in ROLES] == list(ROLES)


def test_every_known_model_has_a_package_that_needs_no_hub() -> None:
    for model in catalog.catalogue().model:
        assert all(f.package is not None and f.hub is not None for f in model.file), model.name


def test_the_catalogue_inside_the_package_comes_before_the_source_tree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = catalog.catalogue_path()
    package = tmp_path / "tree" / "specrag_native"
    outside, inside = tmp_path / "tree" / "models", package / "models"
    for folder in (outside, inside):
        folder.mkdir(parents=True)
        shutil.copy(real, folder / "catalog.toml")
    monkeypatch.setattr(catalog, "__file__", str(package / "model_files" / "catalog.py"))
    assert catalog.catalogue_path() == inside / "catalog.toml"
    (inside / "catalog.toml").unlink()
    assert catalog.catalogue_path() == outside / "catalog.toml"
    (outside / "catalog.toml").unlink()
    with pytest.raises(ConfigError, match="install the package again"):
        catalog.catalogue_path()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'licence = "Apache-2.0"',
            'licence = "Apache-2.0"\nlisence = "x"',
            "unknown key 'lisence'",
        ),
        ("[defaults]", "[default]", "unknown key 'default'"),
        ("part_size = 52428800", "part_sise = 52428800", "unknown key 'part_sise'"),
        ('repo = "Qwen/', 'repos = "Qwen/', "hub: unknown key 'repos'"),
        ('kind = "quantise"\n', 'kind = "shrink"\n', "prepare.kind is 'shrink'"),
        ('role = "verifier"', 'role = "judge"', "role is 'judge', expected one of drafter"),
        ('role = "verifier"\n', "", "missing key role"),
        ("size = 98362432", 'size = "98362432"', "size: expected int"),
        ("size = 98362432", "size = 0", "needs a plain name and a size"),
        ("part_size = 52428800", "part_size = 52428", "cannot make 1117320768 bytes"),
        ('sha256 = "b179c9', 'sha256 = "B179c9', "is no sha256"),
        ('name = "vocab.txt"', 'name = "../vocab.txt"', "needs a plain name"),
        ('embedder = "all-minilm-l6-v2"', 'embedder = "all-minilm"', "no model 'all-minilm'"),
        ('name = "all-minilm-l6-v2"', 'name = "smollm2-135m-instruct"', "is there twice"),
        ("[defaults]", "[defaults", "cannot read the catalogue"),
        ('base = "all-minilm-l6-v2"\n', "", "either [[model.file]] or prepare.base"),
        ('base = "all-minilm-l6-v2"', 'base = "nothing"', "is no model that an adapter"),
    ],
)
def test_a_wrong_catalogue_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = catalog.catalogue_path().read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "catalog.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_known_model_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(ModelNotFoundError, match=r"run: specrag pull all-minilm-l6-v2$"):
        catalog.resolve("all-minilm-l6-v2", role="embedder")


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        catalog.resolve("smolm2-135m")
    assert "did you mean smollm2-135m-instruct?" in str(caught.value)
    assert "all-minilm-l6-v2" in str(caught.value)


def test_a_path_resolves_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(CAUSAL)
    found = catalog.resolve(str(path), role="verifier")
    assert (found.path, found.name, found.sha256) == (path, "mine", None)


@pytest.mark.parametrize("name", ["absent.gguf", "some/dir/absent.gguf", "./absent"])
def test_a_path_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no model file .*absent"):
        catalog.resolve(name)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a folder"):
        catalog.resolve(str(tmp_path))


def test_a_web_page_saved_as_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<!doctype html><title>Not found</title>")
    with pytest.raises(ModelFileError, match=r"page\.gguf is a web page"):
        catalog.resolve(str(path))


def test_an_embedder_is_refused_as_drafter_and_a_writer_as_embedder(tmp_path: Path) -> None:
    causal, bert = tmp_path / "causal.gguf", tmp_path / "bert.gguf"
    causal.write_bytes(CAUSAL)
    bert.write_bytes(BERT)
    with pytest.raises(ModelFileError, match="no causal language model: it cannot be the drafter"):
        catalog.resolve(str(bert), role="drafter")
    with pytest.raises(ModelFileError, match="it cannot be the embedder"):
        catalog.resolve(str(causal), role="embedder")
    assert catalog.resolve(str(bert), role="embedder").path == bert
    ranks = tmp_path / "ranks.gguf"
    ranks.write_bytes(gguf_bytes("bert", causal=False, pooling=4))
    assert catalog.resolve(str(ranks), role="reranker").path == ranks
    for role in ("drafter", "embedder"):
        with pytest.raises(ModelFileError, match=f"it cannot be the {role}"):
            catalog.resolve(str(ranks), role=role)
    with pytest.raises(ModelFileError, match="pools no scores: it cannot be the reranker"):
        catalog.resolve(str(bert), role="reranker")


def test_a_model_of_the_catalogue_is_refused_in_a_role_it_cannot_fill(
    monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    use(monkeypatch, model_of(BERT, name="embeds", role="embedder"), model_of(CAUSAL))
    models.mkdir(parents=True)
    (models / "embeds.gguf").write_bytes(BERT)
    (models / "toy.gguf").write_bytes(CAUSAL)
    with pytest.raises(ModelFileError, match="cannot be the drafter; use toy"):
        catalog.resolve("embeds", role="drafter")
    assert catalog.resolve("toy", role="verifier").path == models / "toy.gguf"


def test_a_model_of_the_catalogue_is_hashed_once(
    monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    use(monkeypatch, model_of(CAUSAL))
    models.mkdir(parents=True)
    (models / "toy.gguf").write_bytes(CAUSAL)
    hashed: list[Path] = []
    real = model_dir.hash_file
    monkeypatch.setattr(model_dir, "hash_file", lambda p, **k: hashed.append(p) or real(p, **k))
    for _ in range(3):
        assert catalog.resolve("toy").sha256 == sha256(CAUSAL)
    assert hashed == [models / "toy.gguf"]


def test_a_changed_file_of_the_same_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    use(monkeypatch, model_of(CAUSAL))
    models.mkdir(parents=True)
    path = models / "toy.gguf"
    path.write_bytes(CAUSAL)
    catalog.resolve("toy")
    path.write_bytes(CAUSAL[:-1] + b"!")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelFileError, match=r"wrong sha256 .* expected .*specrag pull toy"):
        catalog.resolve("toy")


def test_a_cut_off_file_of_the_catalogue_is_refused(
    monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    use(monkeypatch, model_of(CAUSAL))
    models.mkdir(parents=True)
    (models / "toy.gguf").write_bytes(CAUSAL[:-10])
    with pytest.raises(ModelFileError, match=f"{len(CAUSAL) - 10} bytes, expected {len(CAUSAL)}"):
        catalog.resolve("toy")


def test_the_model_folder_can_be_moved(
    monkeypatch: pytest.MonkeyPatch, models: Path, tmp_path: Path
) -> None:
    prepare = Preparation("quantise", "Q8_0")
    model = model_of(CAUSAL, prepare=prepare)
    use(monkeypatch, model)
    models.mkdir(parents=True)
    path = models / "toy-q8_0.gguf"
    path.write_bytes(BERT)
    model_dir.write_record("toy", path, sha256=sha256(BERT), recipe=model.recipe, origin="package")
    assert catalog.resolve("toy").path == path
    moved = tmp_path / "elsewhere"
    (tmp_path / "specrag").rename(moved)
    monkeypatch.setenv("SPECRAG_HOME", str(moved))
    assert catalog.resolve("toy").path == moved / "models" / "toy-q8_0.gguf"


def test_a_prepared_file_of_another_recipe_is_not_used(
    monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    old = model_of(CAUSAL, prepare=Preparation("quantise", "Q8_0"))
    models.mkdir(parents=True)
    path = models / "toy-q8_0.gguf"
    path.write_bytes(BERT)
    model_dir.write_record("toy", path, sha256=sha256(BERT), recipe=old.recipe, origin="package")
    use(monkeypatch, model_of(CAUSAL, prepare=Preparation("quantise", "Q8_0", revision=2)))
    with pytest.raises(ModelNotFoundError, match="run: specrag pull toy"):
        catalog.resolve("toy")


def test_a_file_prepared_here_stands_for_the_one_that_was_measured(
    monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    from specrag_native.evaluation.machine import identity, model_files

    model = model_of(CAUSAL, prepare=Preparation("quantise", "Q8_0", sha256="a" * 64))
    use(monkeypatch, model)
    models.mkdir(parents=True)
    path, other = models / "toy-q8_0.gguf", models / "other.gguf"
    for file in (path, other):
        file.write_bytes(BERT)
    assert catalog.prepared_as(path) is None, "who made it is not known"
    model_dir.write_record("toy", path, sha256=sha256(BERT), recipe=model.recipe, origin="package")
    assert (catalog.prepared_as(path), catalog.prepared_as(other)) == ("a" * 64, None)
    facts = model_files({"drafter": path, "verifier": other})
    assert facts["drafter"] == {
        "file": path.name,
        "sha256": sha256(BERT),
        "stands_for": "a" * 64,
    }
    assert (identity(facts["drafter"]), identity(facts["verifier"])) == ("a" * 64, sha256(BERT))
    model_dir.write_record("toy", path, sha256="a" * 64, recipe="another", origin="package")
    assert catalog.prepared_as(path) is None


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_a_file_in_the_hugging_face_cache_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, models: Path, tmp_path: Path, variable: str
) -> None:
    use(monkeypatch, model_of(CAUSAL, hub_file=REPO))
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    cache = tmp_path / "cache" / "hub" if variable == "HF_HOME" else tmp_path / "cache"
    path = put_in_hub_cache(cache, REPO.repo, REPO.file, CAUSAL)
    found = catalog.resolve("toy")
    assert (found.path, found.sha256) == (path, sha256(CAUSAL))
    assert [p.name for p in models.iterdir()] == ["toy.json"]


@pytest.mark.parametrize(
    "name", ["a/b", "a/b:Q4_K_M", "a/b:q4_k_m", "hf:a/b:Q4_K_M", "hf:a/b/x-Q4_K_M.gguf"]
)
def test_a_repository_resolves_in_the_hugging_face_cache(tmp_path: Path, name: str) -> None:
    path = put_in_hub_cache(tmp_path / "hf" / "hub", "a/b", "x-Q4_K_M.gguf", CAUSAL)
    put_in_hub_cache(tmp_path / "hf" / "hub", "a/b", "x-Q8_0.gguf", CAUSAL + b"more")
    assert catalog.resolve(name, role="drafter").path == path


def test_a_repository_that_is_not_cached_says_how_to_get_it() -> None:
    with pytest.raises(ModelNotFoundError, match=r"run: specrag pull a/b:Q4_K_M$"):
        catalog.resolve("a/b:Q4_K_M")


def test_the_list_reads_no_contents(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    use(monkeypatch, model_of(CAUSAL), model_of(BERT, name="other", role="embedder"))
    models.mkdir(parents=True)
    (models / "toy.gguf").write_bytes(CAUSAL)
    monkeypatch.setattr(model_dir, "hash_file", lambda *a, **k: pytest.fail("a file was read"))
    toy, other = catalog.list_models()
    assert (toy.present, toy.size, toy.is_default) == (True, len(CAUSAL), True)
    assert (other.present, other.path, other.size) == (False, None, 0)
