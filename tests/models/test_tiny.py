"""The tiny model as transformers sees it: a complete folder that loads, generates, and computes what JAX does."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.video_utils import VideoMetadata

from jaxvsr.errors import InputError
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.huggingface.hf_config import read_config
from jaxvsr.models.huggingface.model_folder import load_parameters
from jaxvsr.models.inputs.processor import Image, SceneProcessor, ScenePrompt, Video
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tiny.tiny_model import TinyShape, write_tiny_model
from jaxvsr.models.tiny.tiny_text import ANSWERS, tokenizer_corpus
from tests.support.forks import said_by
from tests.support.hf_processor import hugging_face_inputs

QUESTION = "How many chair(s)in the room?"


@pytest.fixture(scope="module")
def folders(tiny_model):
    return {family: tiny_model(family, TinyShape()) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def folder(folders, request):
    return folders[request.param]


@pytest.mark.slow
def test_transformers_loads_the_folder_and_generates_from_a_video(folder):
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoProcessor.from_pretrained(folder)
    frames = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), dtype=np.uint8)
    inputs = hugging_face_inputs(folder, (Video(frames),), QUESTION)
    inputs = {name: torch.as_tensor(value) for name, value in inputs.items()}
    answers = model.generate(**inputs, max_new_tokens=8)
    assert answers.shape[1] > inputs["input_ids"].shape[1]
    answer = answers[0, inputs["input_ids"].shape[1] :]
    text_of = SceneProcessor.from_folder(folder).chat.text
    assert text_of(answer.numpy().astype(np.int32)) == processor.decode(answer, skip_special_tokens=True)
    question = np.array(processor.tokenizer(QUESTION).input_ids, np.int32)  # an untrained model may say nothing
    assert text_of(question) == processor.decode(question, skip_special_tokens=True) == QUESTION
    assert model.generation_config.eos_token_id == [
        processor.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_the_code_of_the_serving_page_runs_and_passes_the_trained_positions(folders, family):
    folder = folders[family]
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    frames, a_frame = np.zeros((10, 56, 56, 3), np.uint8), 2.0  # longer than wide: there the rules differ
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def with_metadata(**inputs):
        metadata = VideoMetadata(10, 1 / a_frame, frames_indices=list(range(10)))
        return processor(**inputs, videos_kwargs={"video_metadata": [metadata], "do_sample_frames": False})

    names = {"processor": with_metadata, "prompt": prompt, "frames": torch.tensor(frames).permute(0, 3, 1, 2)}
    names["model"] = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.no_grad():
        exec(code.replace('"OUT"', repr(str(folder))), names)

    tree = SceneProcessor.from_folder(folder).tree_prompt(
        [ScenePrompt((Video(frames, np.arange(10) * a_frame),), (QUESTION,))]
    )
    scene, question = int(tree.scene_length[0]), int(tree.question_length[0, 0])
    np.testing.assert_array_equal(names["positions"][:scene], tree.scene_positions[0, :scene])
    behind = int(tree.question_start[0]) + np.arange(question)
    np.testing.assert_array_equal(names["positions"][scene:], behind[:, None].repeat(3, axis=1))
    assert names["logits"].shape[1] == scene + question


@pytest.mark.slow
@pytest.mark.parametrize(
    "media",
    [
        ("video", (5, 4, 5)),
        ("image", (3, 7)),
    ],
)
def test_the_jax_model_gives_transformers_logits(folder, media):
    """The whole way: folder, tokens, pixels, window order, positions, tower and language model."""
    kind, (*count, high, wide) = media
    config = read_config(folder)
    size = (*count, high * config.vision.merged_patch, wide * config.vision.merged_patch, 3)
    pixels = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    item = Video(pixels, np.arange(len(pixels)) * 1.0) if kind == "video" else Image(pixels)
    video_prompt = "wrapped" if config.family == "qwen3_vl" else "blocks"  # as the installed transformers writes it
    processor = SceneProcessor.from_folder(folder, video_prompt=video_prompt)
    prompt = processor.tree_prompt([ScenePrompt((item,), (QUESTION,))])
    scene, question = int(prompt.scene_length[0]), int(prompt.question_length[0, 0])
    tokens = np.concatenate([prompt.scene_tokens[0, :scene], prompt.question_tokens[0, 0, :question]])
    text = prompt.question_start[0] + np.broadcast_to(np.arange(question)[:, None], (question, 3))
    positions = np.concatenate([prompt.scene_positions[0, :scene], text]).astype(np.int32)
    index = np.concatenate([prompt.vision_index[0, :scene], np.full(question, -1, np.int32)])

    parameters = {name: jnp.asarray(leaf) for name, leaf in load_parameters(folder).items()}
    model = bind(model_definition(read_config(folder)), parameters)
    vision = type(prompt.vision)(
        *(jnp.asarray(leaf) for leaf in (prompt.vision.patches, prompt.vision.valid, prompt.vision.coordinates))
    )
    hidden = model(
        jnp.asarray(tokens)[None],
        jnp.asarray(positions)[None],
        vision_index=jnp.asarray(index)[None],
        vision=vision,
        dtype=jnp.dtype("float32"),
    )
    ours = np.asarray(model.logits(hidden))[0]

    inputs = {name: torch.as_tensor(value) for name, value in hugging_face_inputs(folder, (item,), QUESTION).items()}
    with torch.no_grad():
        theirs = AutoModelForImageTextToText.from_pretrained(folder).eval()(
            **inputs, position_ids=torch.tensor(positions.T)[:, None].long()
        )
    theirs = theirs.logits[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_another_process(folders, tmp_path):
    script = "import sys; from pathlib import Path; from jaxvsr.models.tiny.tiny_model import write_tiny_model; "
    script += "write_tiny_model(Path(sys.argv[1]), int(sys.argv[2]))"
    said_by(script, tmp_path / "again", 0)
    for path in folders["qwen2_vl"].iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    write_tiny_model(tmp_path / "other", 1)
    weights, tokens = "model.safetensors", "tokenizer.json"
    assert (tmp_path / "other" / weights).read_bytes() != (folders["qwen2_vl"] / weights).read_bytes()
    assert (tmp_path / "other" / tokens).read_bytes() == (folders["qwen2_vl"] / tokens).read_bytes()


def test_the_default_folder_is_small(folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    config = read_config(folder)
    assert 1_200_000 < sum(array.size for array in load_parameters(folder).values()) < 2_000_000
    assert config.text.vocab_size <= 1024 and config.text.head_dim == 32


def test_words_of_questions_and_digits_are_single_tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = tokenizer.backend_tokenizer.pre_tokenizer
    words = {piece for text in tokenizer_corpus() for piece, _ in pieces.pre_tokenize_str(text)}
    vocabulary = tokenizer.get_vocab()
    assert words <= set(vocabulary)
    assert len(tokenizer("128.5")["input_ids"]) == 5
    assert all(len(tokenizer(answer)["input_ids"]) == 1 for answer in ANSWERS if answer.isalpha())
    for text in ("Ein Stuhl – schön! 椅子 🙂", "\n\t  x"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_tiny_model_has_the_given_shape_family_and_dtype(tmp_path):
    shape = TinyShape(width=64, text_layers=2, heads=2, key_value_heads=1, rope_theta=20.0)
    config = write_tiny_model(tmp_path / "small", 0, shape=shape, dtype="bfloat16")
    assert read_config(tmp_path / "small") == config
    assert (config.text.hidden_size, config.text.num_hidden_layers, config.text.rope_theta) == (64, 2, 20.0)
    assert {str(array.dtype) for array in load_parameters(tmp_path / "small").values()} == {"bfloat16"}
    assert json.loads((tmp_path / "small" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    with pytest.raises(InputError, match="width 60"):
        write_tiny_model(tmp_path / "odd", 0, shape=TinyShape(width=60, heads=4))
    with pytest.raises(InputError, match="not empty"):
        write_tiny_model(tmp_path / "small", 0)
