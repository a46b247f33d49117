"""The command `imgkit providers`, and the options and prices in `imgkit models`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from imgkit.catalogue.catalogue import Catalogue
from imgkit.cli import models, providers
from imgkit.cli.columns import format_columns, format_pairs
from imgkit.cli.run import run
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.registry import load_hook_table
from tests.cli.support import clear_environment

OWN = """
unconfirmed = ["the weather"]
[options.steps]
type = "int"
least = 1
most = 50
help = "Steps of the sampler."
models = ["mine*"]
[options.style]
type = "str"
allowed = ["a", "b"]
help = "Look."
operations = ["create_image"]
[rules.ratios]
field = "aspect_ratio"
allowed = ["1:1", "16:9"]
[prices.mine]
currency = "USD"
per_image = 0.04
per_megapixel = 0.01
[prices.mine.per_image_by.resolution]
"1K" = 0.03
"2K" = 0.06
[[models]]
id = "mine-1"
operations = ["create_image"]
rules = ["ratios"]
prices = "mine"
shutdown = 2099-01-02
[[models]]
id = "other"
"""


@pytest.fixture(autouse=True)
def set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the command facts of the user's own."""
    clear_environment(monkeypatch, tmp_path)
    (tmp_path / "own.toml").write_text(OWN)
    monkeypatch.setenv("IMGKIT_MODELS", str(tmp_path / "own.toml"))


def test_list(capfd: pytest.CaptureFixture[str]) -> None:
    """Prints a line per provider in a pipe, and the same facts as JSON."""
    assert run(["providers"]) == 0
    lines = {line.split()[0]: line.split() for line in capfd.readouterr().out.splitlines()}
    assert set(lines) == {"provider", *load_hook_table().provider_specs()}
    assert lines["fal"][-2:] == ["unknown", "FAL_KEY"]
    assert lines["bfl"] == ["bfl", "create", "edit", "white", "1", "-", "yes", "reply", "BFL_API_KEY"]
    assert run(["providers", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capfd.readouterr().out)["providers"]}
    assert set(lines) == {"provider", *entries}
    assert entries["openai"]["key_variables"] == ["OPENAI_API_KEY"]
    assert entries["openai"]["operations"]["create_image"]
    assert "options" not in entries["openai"]


@pytest.mark.parametrize("columns", [80, 40])
def test_terminals(columns: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Fits terminals of two widths; only a word may be longer."""
    for module in (providers, models):
        monkeypatch.setattr(module, "count_columns", lambda stream: columns)
    for args in (["providers"], ["providers", "openai"], ["models"], ["models", "mine-1"]):
        assert run(args) == 0
        out = capfd.readouterr().out
        long = [line for line in out.splitlines() if len(line) > columns]
        assert all(len(line.split()) == 1 for line in long), long
        assert "mine-1" in out or args == ["providers"]


def test_one_provider(capfd: pytest.CaptureFixture[str]) -> None:
    """Prints address, key, page, fields, options with ranges, models with shapes, prices and ends."""
    assert run(["providers", "fal"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("fal: ")
    assert "address    https://queue.fal.run\n" in out
    assert "key        FAL_KEY; https://fal.ai/dashboard/keys has your keys\n" in out
    assert "mask       white pixels may change\n" in out
    assert re.search(
        r"\n  steps +a whole number from 1 to 50\. Steps of the sampler\. Models: mine\*\. \[", out
    )
    assert re.search(r"\n  style +a or b\. Look\. For create\. \[", out)
    assert "create; aspect_ratio 1:1 or 16:9; doubtful; 0.04 USD per image; 0.01 USD per megapixel; " in out
    assert "USD per image by resolution: 1K 0.03, 2K 0.06 (your own); until 2099-01-02 [" in out
    assert "  the weather\n" in out
    assert run(["providers", "fal", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["providers"]
    options = {option["name"]: option for option in entry["options"]}
    assert (options["steps"]["least"], options["steps"]["most"]) == (1, 50)
    assert {"mine-1", "other"} <= {model["id"] for model in entry["models"]}
    assert "the weather" in entry["unconfirmed"]
    assert entry["pace"]["requests_in_flight"] == 10
    assert entry["pace"]["sure"] is False
    assert re.search(r"\n  pace +10 requests in flight; doubtful \[", out)


def test_models_show_options_and_prices(capfd: pytest.CaptureFixture[str]) -> None:
    """Prints the options that a model has, and every kind of price."""
    assert run(["models", "mine-1", "--provider", "fal"]) == 0
    out = capfd.readouterr().out
    assert "USD per image by resolution: 1K 0.03, 2K 0.06" in out
    assert re.search(r"\noptions \(--set NAME=VALUE\)\n(  .*\n)*  steps +a whole number from 1 to 50", out)
    assert run(["models", "other", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["models"]
    assert [option["name"] for option in entry["options"]] == ["style"]
    assert run(["models", "--provider", "gemini", "--json"]) == 0
    entries = json.loads(capfd.readouterr().out)["models"]
    assert "gemini-3.1-flash-image" in [entry["id"] for entry in entries]


def test_offline_notice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names the variable of the provider whose API answered offline."""
    args = ["--backend", "offline", "--provider", "bfl", "-o", str(tmp_path / "fox.png"), "--size", "64x64"]
    assert run(["create", "a fox", *args]) == 0
    assert "--model NAME, with the key in BFL_API_KEY." in " ".join(capfd.readouterr().err.split())
    args = ["--backend", "offline", "--provider", "vllm", "-o", str(tmp_path / "own.png"), "--size", "64x64"]
    assert run(["create", "a fox", *args]) == 0
    notice = " ".join(capfd.readouterr().err.split())
    assert "--backend requests; your server is at http://127.0.0.1:8000/v1, or pass --base-url." in notice
    assert "key" not in notice


def test_no_known_models(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Says that it knows no models, in place of printing nothing."""
    monkeypatch.delenv("IMGKIT_MODELS")
    assert run(["models", "--provider", "openrouter"]) == 0
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "No facts about models of openrouter." in " ".join(captured.err.split())


def test_unconfirmed_facts(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Says each unconfirmed rule in words, with its models; each source has a text and a single date."""
    monkeypatch.delenv("IMGKIT_MODELS")
    assert run(["providers", "bfl"]) == 0
    out = capfd.readouterr().out
    rule = "sides in multiples of 32, sides up to 1440, 65,536 pixels or more"
    assert f"  size of flux-pro-1.1: {rule} [1]\n" in out
    assert "; aspect_ratio up to 2.33:1 (from 3:7 to 7:3); " in out
    assert run(["providers", "recraft"]) == 0
    assert "  output_format of recraftv4_1 and 7 more: png or webp [1]\n" in capfd.readouterr().out


def test_sources_have_a_text_and_a_date() -> None:
    """Names a source for each model of each provider, and no date twice."""
    for name, named in load_hook_table().specs_by_name(ProviderSpec).items():
        for model in Catalogue(name, named.load().model_facts).list_models():
            assert model.origin.source, (name, model.id)
            assert str(model.origin).count("read ") == 1, (name, str(model.origin))


def test_a_vendor_in_place_of_a_provider(capfd: pytest.CaptureFixture[str]) -> None:
    """Suggests the provider whose summary names the vendor."""
    assert run(["providers", "google"]) == 2
    assert "Unknown provider 'google' (did you mean 'gemini'?)." in capfd.readouterr().err


@pytest.mark.parametrize("args", [["providers", "opnai"], ["models", "--provider", "opnai"]])
def test_unknown_provider(args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Names the nearest provider, and all."""
    assert run(args) == 2
    err = capfd.readouterr().err
    assert "Unknown provider 'opnai' (did you mean 'openai'?)." in err
    assert all(name in err for name in load_hook_table().provider_specs())


def test_columns() -> None:
    """Puts the last cell on a line of its own, and makes lists of pairs where nothing else fits."""
    heading, rows = ("name", "n", "key"), [("acme", "10", "ACME_API_KEY"), ("b", "", "B")]
    assert format_columns(heading, rows, 0) == [
        "name  n   key", "acme  10  ACME_API_KEY", "b         B"
    ]  # fmt: skip
    assert format_columns(heading, rows, 12) == ["name  n", "acme  10", "  ACME_API_KEY", "b", "  B"]
    assert format_columns(heading, rows, 7)[:3] == ["acme", "  n  10", "  key"]
    assert format_pairs([], 40) == []
