"""Tests of rlhf.report.page: every section, hostile text, the content policy, the size."""

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser

import pytest

from rlhf.printable import printable
from rlhf.report.page import CONTENTS, html
from rlhf.report.reading.run import read_run

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(2)> &amp; {{ 7 * 7 }} "
HOSTILE = ATTACK + "\x1b[31m \u202etxt.exe\u2066 \ud83d \x00"
SHOWN = ATTACK + "\u241b[31m [U+202E]txt.exe[U+2066] [U+D83D] \u2400"


class Page(HTMLParser):
    """Collects elements, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.attributes, self.text, self.meta = [], [], [], [], {}
        self.scripts, self.styles, self._inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        self.ids += [given["id"]] if "id" in given else []
        self._inside = tag
        if tag == "meta" and "http-equiv" in given:
            self.meta[given["http-equiv"]] = given["content"]

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        {"script": self.scripts, "style": self.styles}.get(self._inside, self.text).append(data)


@pytest.fixture
def hostile(planting, tmp_path):
    """A run whose every text is an attack."""
    run = planting.plant(tmp_path / "run")
    for path in [*(run / "ppo" / "samples").glob("*.jsonl"), *(run / "evaluate").glob("*.jsonl")]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row |= {"prompt": row["prompt"] + HOSTILE, "response": HOSTILE}
            if "trace" in row:
                row["trace"]["text"][-1] = HOSTILE
        planting.write_rows(path, rows)
    content = planting.frontier()
    content["points"][0]["name"] = content["best"] = content["gold_judge"] = HOSTILE
    content["disputed"] = [dict.fromkeys(("policy", "prompt", "response"), HOSTILE) | {"proxy": 1.0, "gold": 0.0}]
    planting.write_frontier(run, content)
    rows = planting.metrics({f"reward/{HOSTILE}/mean": (planting.rising(0, 1), 0.1)})
    planting.write_rows(run / "ppo" / "metrics.jsonl", rows)
    config = run / "ppo" / "config.yaml"
    config.write_text(config.read_text() + f"reference: {json.dumps(HOSTILE)}\n")
    return run


def test_every_section_is_there_and_links_lead_somewhere(planting, tmp_path):
    page = Page(html([read_run(planting.plant(tmp_path, planting.ILL["kl-runaway"]))]))
    wanted = {anchor for anchor, _ in CONTENTS} - {"differences"}
    assert wanted <= set(page.ids) and len(set(page.ids)) == len(page.ids)
    links = [value for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert "#ppo-objective-kl" in links
    assert {link.removeprefix("#") for link in links} <= {*page.ids}


def test_a_warning_shows_its_step_its_evidence_its_remedy_and_its_doubt(planting, tmp_path):
    text = html([read_run(planting.plant(tmp_path, planting.ILL["kl-runaway"]))])
    warning = text[text.index('class="warning"') : text.index("What else was looked for")]
    for part in (
        "The KL runs away",
        "First step",
        "nats per sequence, above 30",
        "<code>kl_coef</code>",
        "It may be wrong",
    ):
        assert part in warning
    assert 'class="warning"' not in html([read_run(planting.plant(tmp_path / "good"))])


def test_what_a_model_wrote_stays_text(hostile):
    page = Page(html([read_run(hostile)]))
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    text = "".join(page.text)
    assert text.count(SHOWN) > 20 and "{{ 7 * 7 }}" in text
    whole = html([read_run(hostile)])
    assert printable(whole) == whole


def test_the_policy_allows_one_script_and_one_style_and_no_network(hostile):
    page = Page(html([read_run(hostile)]))

    def hashed(texts):
        return f"'sha256-{base64.b64encode(hashlib.sha256(''.join(texts).encode()).digest()).decode()}'"

    policy = dict(part.strip().split(" ", 1) for part in page.meta["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": hashed(page.scripts),
        "style-src": hashed(page.styles),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not [value for _, name, value in page.attributes if name in ("src", "srcset", "action", "data")]
    hrefs = [value for _, name, value in page.attributes if name == "href"]
    assert hrefs and all(href.startswith("#") for href in hrefs)
    assert "url(" not in "".join(page.styles) and "@import" not in "".join(page.styles)


def test_every_chart_has_a_title_a_description_and_a_table(planting, tmp_path):
    text = html([read_run(planting.plant(tmp_path))])
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) > 15
    for drawing in drawings:
        assert (
            'role="img"' in drawing
            and re.search("<title [^>]*>[^<]", drawing)
            and re.search("<desc [^>]*>[^<]", drawing)
        )
    assert text.count('class="plot" id=') == text.count('<summary>Numbers<span class="unseen">')


def test_two_runs_show_their_settings_first_and_then_their_curves_together(planting, tmp_path):
    one, other = planting.plant(tmp_path / "one"), planting.plant(tmp_path / "other", planting.ILL["entropy-collapse"])
    config = other / "ppo" / "config.yaml"
    config.write_text(config.read_text().replace("kl_coef: 0.05", "kl_coef: 0.0"))
    text = html([read_run(one), read_run(other)])
    table = text[text.index('id="differences"') : text.index('id="comparison"')]
    assert "ppo.kl_coef" in table and "<td>0.05</td><td>0.0</td>" in table
    score = text[text.index('id="ppo-objective-scores"') :]
    assert re.findall(r'aria-hidden="true"></span>(\w+)</li>', score)[:2] == ["one", "other"]
    assert "Entropy collapsed" in text and "(other)" in text


def test_a_frontier_has_its_section_and_a_run_without_one_says_what_makes_it(planting, tmp_path):
    run = planting.plant(tmp_path / "run")
    without = html([read_run(run)])
    assert "No frontier here: <code>rlhf evaluate --frontier RUN</code>" in without
    planting.write_frontier(run)
    text = html([read_run(run)])
    section = text[text.index('id="frontier"') : text.index('id="curves"')]
    for part in (
        "<strong>step-000020</strong> is the best policy",
        "PPO: gain over the start",
        "Best of n: gain over the start",
        "the fit is highest at a KL of 2.72 nats",
        "All points (7)",
        "does not (6)",
        "proxy +4, gold -1.5",
    ):
        assert part in section
    both = html([read_run(run), read_run(planting.plant(tmp_path / "other"))])
    page = Page(both)
    assert len(set(page.ids)) == len(page.ids) and "No frontier here" not in both


@pytest.mark.slow
def test_seeds_of_one_recipe_share_a_band(planting, tmp_path):
    runs = [read_run(planting.plant(tmp_path / f"seed{seed}", seed=seed)) for seed in range(3)]
    text = html(runs)
    assert "differ in their seeds alone" in text and "mean of 3 runs" in text
    score = text[text.index('id="ppo-objective-scores"') :]
    assert 'class="band b0"' in score[: score.index("</svg>")]


@pytest.mark.slow
def test_runs_of_one_name_are_told_apart(planting, tmp_path):
    runs = [read_run(planting.plant(tmp_path / name / "run")) for name in ("a", "b")]
    assert "a/run" in html(runs) and "b/run" in html(runs)


@pytest.mark.parametrize("stage", ["ppo", "evaluate"])
def test_a_stage_alone_has_a_page(planting, tmp_path, stage):
    page = Page(html([read_run(planting.plant(tmp_path) / stage)]))
    assert "verdict" in page.ids and "what-ran" in page.ids


@pytest.mark.slow
def test_a_long_run_with_many_samples_stays_small(planting, tmp_path):
    run = planting.plant(tmp_path, steps=2000)
    noise = random.Random(0)
    prompts = [f"The film number {number}" for number in range(3000)]
    for step in range(1, 401):
        rows = [planting.sample(step, prompt, noise) for prompt in noise.sample(prompts, 50)]
        for row in rows:
            row["response"] *= 20
        planting.write_rows(run / "ppo" / "samples" / f"step-{5 * step:06d}.jsonl", rows)
    read = read_run(run)
    assert len(read.ppo.metrics.rows) == 2000 and len(read.ppo.samples) > 20_000
    assert len(html([read]).encode()) < 15e6
