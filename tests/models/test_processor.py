"""Scene trees from frames and text, against transformers' processors on the same folder."""

import contextlib
import json
import pickle
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from jaxvsr.errors import InputError
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.huggingface.hf_config import read_config
from jaxvsr.models.huggingface.model_folder import load_parameters
from jaxvsr.models.inputs.collate import TreeShape
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions
from jaxvsr.models.inputs.processor import Image, SceneProcessor, ScenePrompt, Video
from jaxvsr.models.inputs.processor_config import read_processor_config
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tiny.tiny_model import TinyShape
from jaxvsr.models.tree import ForwardOptions, encode_vision
from jaxvsr.models.tree_batch import RolloutTokens
from tests.support.hf_processor import hugging_face_inputs, to_uint8

COUNT = "How many chair(s)in the room?\nPlease answer the question using a single word or phrase."
LEFT = "If I am standing by the bed, is the sofa to the left or the right? Größe 12.5 m² 🙂"
RNG = np.random.default_rng(0)


def video(frames=5, height=112, width=140):
    return Video(RNG.integers(0, 256, (frames, height, width, 3), dtype=np.uint8), np.arange(frames) * 1.5)


def image(height=84, width=56):
    return Image(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def in_whole_patches(media, config):
    """Media of sides in multiples of 28 pixels, in as many merged patches of this model."""
    unit, fitting = config.vision.merged_patch, []
    for item in media:
        if isinstance(item, str):
            fitting.append(item)
            continue
        pixels = item.frames if isinstance(item, Video) else item.pixels
        *_, height, width, _ = pixels.shape
        pixels = RNG.integers(0, 256, (*pixels.shape[:-3], height // 28 * unit, width // 28 * unit, 3), dtype=np.uint8)
        fitting.append(Video(pixels, item.timestamps) if isinstance(item, Video) else Image(pixels))
    return tuple(fitting)


@pytest.fixture(scope="module")
def folders(tiny_model):
    return {family: tiny_model(family, TinyShape()) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def folder(folders, request):
    return folders[request.param]


@pytest.fixture
def processor(folder):
    return SceneProcessor.from_folder(folder)


@pytest.fixture
def theirs(folder):
    """A processor that writes the prompt of a video as the installed transformers does."""
    prompt = "wrapped" if read_config(folder).family == "qwen3_vl" else "blocks"
    return SceneProcessor.from_folder(folder, video_prompt=prompt)


CONVERSATIONS = {
    "video": ((video(),), None),
    "system prompt": ((video(2, 56, 56),), "Answer in one word."),
    "one image": ((image(),), None),
    "images of different sizes and text": (("First: ", image(), " then ", image(28, 140), image()), None),
    "video and image": ((video(3, 56, 84), "and", image()), None),
    "text before the video": (("These are frames of a video.\n", video(4, 84, 84)), None),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_segments_joined_are_transformers_tokens_and_pixels(folder, theirs, name):
    processor = theirs
    media, system = CONVERSATIONS[name]
    media, vision = in_whole_patches(media, processor.config), processor.config.vision
    prompt = processor.tree_prompt([ScenePrompt(media, (COUNT, LEFT), system)])
    length = prompt.scene_length[0]
    for q, question in enumerate((COUNT, LEFT)):
        theirs = hugging_face_inputs(folder, media, question, system)
        joined = [*prompt.scene_tokens[0, :length], *prompt.question_tokens[0, q, : prompt.question_length[0, q]]]
        assert joined == theirs["input_ids"][0].tolist()
    assert prompt.scene_tokens[0, length - 1] == processor.config.vision_end_token_id

    # Token by token: the merge unit that `vision_index` names holds the pixels that transformers feeds there.
    tokens, index = prompt.scene_tokens[0, :length], prompt.vision_index[0, :length]
    units = prompt.vision.patches[0].reshape(-1, 4, vision.patch_values)
    for token, name in (
        (processor.config.video_token_id, "pixel_values_videos"),
        (processor.config.image_token_id, "pixel_values"),
    ):
        if (tokens == token).any():
            ours = units[index[tokens == token]].reshape(-1, vision.patch_values)
            np.testing.assert_array_equal(ours, to_uint8(theirs[name], vision))
    assert ((index >= 0) == np.isin(tokens, [processor.config.video_token_id, processor.config.image_token_id])).all()
    named = np.sort(index[index >= 0])
    np.testing.assert_array_equal(named, np.flatnonzero(prompt.vision.valid[0].reshape(-1, 4).all(axis=1)))


def test_scene_and_question_positions_are_those_of_the_whole_sequence(folder, theirs):
    processor = theirs
    media = in_whole_patches(CONVERSATIONS["video and image"][0], processor.config)
    prompt = processor.tree_prompt([ScenePrompt(media, (COUNT,))])
    theirs = hugging_face_inputs(folder, media, COUNT)
    blocks = [MediaGrid(2, 4, 6, True, 3.0)]
    if processor.config.family == "qwen3_vl":
        blocks = [MediaGrid(1, 4, 6, True)] * 2
    grids = [*blocks, MediaGrid(1, 6, 4, False)]
    positions, _ = mrope_positions(theirs["input_ids"][0], grids, processor.config)
    length = prompt.scene_length[0]
    np.testing.assert_array_equal(prompt.scene_positions[0, :length], positions[:length])
    assert (positions[length:] == prompt.question_start[0] + np.arange(len(positions) - length)[:, None]).all()


def test_prompt_and_answer_tokens_equal_transformers_tokens_of_the_whole_text(folder, theirs):
    processor, media = theirs, (video(2, 56, 56),)
    for answer in ("left", "3", "  front-left\n", "Größe 🙂 2.5", ""):
        theirs = hugging_face_inputs(folder, media, COUNT, answer=answer.strip())["input_ids"][0].tolist()
        prompt = processor.tree_prompt([ScenePrompt(media, (COUNT,))])
        start = int(prompt.scene_length[0] + prompt.question_length[0, 0])
        rollouts = processor.encode_answers([[[answer]]])
        ours = rollouts.tokens[0, 0, 0, : rollouts.length[0, 0, 0]].tolist()
        assert theirs[start : start + len(ours)] == ours  # the template's newline follows
        assert processor.decode(rollouts) == [[[answer.strip()]]]


def test_scenes_of_different_sizes_are_padded_on_the_right(processor):
    small, large = ScenePrompt((video(2, 56, 56),), (COUNT, LEFT)), ScenePrompt((video(7, 84, 112),), (LEFT, COUNT))
    alone = processor.tree_prompt([small])
    both = processor.tree_prompt([large, small])
    assert both.vision.patches.shape[:2] == (2, 4) and both.scene_tokens.shape[1] % 64 == 0
    length = alone.scene_length[0]
    assert both.scene_length[1] == length and both.question_length.shape == (2, 2)
    np.testing.assert_array_equal(both.scene_tokens[1, :length], alone.scene_tokens[0, :length])
    assert not both.vision.valid[1, 1:].any() and (both.vision_index[1, length:] == -1).all()
    # The same pixels stand behind the same tokens, whatever the padded row length is.
    for prompt, s in ((alone, 0), (both, 1)):
        units = prompt.vision.patches[s].reshape(-1, 4, prompt.vision.patches.shape[-1])
        seen = units[prompt.vision_index[s][prompt.vision_index[s] >= 0]]
        np.testing.assert_array_equal(
            seen,
            alone.vision.patches[0].reshape(-1, 4, prompt.vision.patches.shape[-1])[
                alone.vision_index[0][alone.vision_index[0] >= 0]
            ],
        )


def test_an_explicit_shape_is_used_and_a_too_small_one_is_refused(processor):
    scene = ScenePrompt((video(4, 56, 56),), (COUNT,))
    prompt = processor.tree_prompt([scene], TreeShape(rows=3, patches=64, scene=192, question=40))
    assert prompt.vision.patches.shape == (1, 3, 64, processor.config.vision.patch_values)
    assert prompt.scene_tokens.shape == (1, 192) and prompt.question_tokens.shape == (1, 1, 40)
    with pytest.raises(InputError, match="rows 1 is too small; these scenes need 2"):
        processor.tree_prompt([scene], TreeShape(rows=1, patches=64, scene=192, question=40))
    with pytest.raises(InputError, match="scene 8 is too small"):
        processor.tree_prompt([scene], TreeShape(rows=2, patches=64, scene=8, question=40))


@pytest.mark.slow
def test_nothing_recompiles_for_a_new_image_size_inside_a_bucket(folder, processor):
    media = in_whole_patches([image(*size) for size in ((84, 56), (112, 112), (56, 140))], processor.config)
    scenes = [processor.encode(ScenePrompt((one,), (COUNT,))) for one in media]
    shape, definition = processor.shape(scenes), model_definition(processor.config)
    parameters = {name: jnp.asarray(leaf) for name, leaf in load_parameters(folder).items()}

    traced = {"in_bucket": 0, "of_its_own": 0}

    def counted(name):
        def encode(parameters, prompt):
            traced[name] += 1  # once a compilation
            return encode_vision(bind(definition, parameters), prompt, ForwardOptions(dtype="float32"))

        return jax.jit(encode)

    def tokens(features, prompt):
        """Of the language model, in its order: what the bucket must not change."""
        return np.asarray(features)[0][prompt.vision_index[prompt.vision_index >= 0]]

    in_bucket, of_its_own = counted("in_bucket"), counted("of_its_own")
    for scene in scenes:
        alone, padded = processor.collate([scene]), processor.collate([scene], shape)
        expected = tokens(of_its_own(parameters, alone), alone)
        np.testing.assert_allclose(tokens(in_bucket(parameters, padded), padded), expected, atol=1e-5)
    assert traced == {"in_bucket": 1, "of_its_own": len(scenes)}


def test_frames_are_resized_only_by_a_budget_or_to_whole_patches(folder, processor):
    unit, whole = processor.config.vision.merged_patch, processor.config.family == "qwen3_vl"
    media = in_whole_patches([video(2, 560, 560)], processor.config)
    as_they_are = processor.encode(ScenePrompt(media, (COUNT,)))
    assert as_they_are.patches[0].shape[1] >= 1600  # above the folder's own limit of 64 merged patches
    frames = 64 if whole else 2  # the limit is that of 64 frames there
    odd = processor.encode(ScenePrompt((video(frames, 300 if whole else 600, 600),), (COUNT,)))
    assert 40 < (odd.vision_row == 0).sum() <= 64
    budget = SceneProcessor.from_folder(folder, max_pixels=unit * unit * 9)
    assert (budget.encode(ScenePrompt((video(2, 560, 560),), (COUNT,))).vision_row >= 0).sum() == 9
    assert (budget.encode(ScenePrompt((image(600, 300),), (COUNT,))).vision_row >= 0).sum() <= 9
    with pytest.raises(InputError, match="max_pixels 100"):
        SceneProcessor.from_folder(folder, max_pixels=100)


def test_end_of_sequence_and_suppressed_tokens_are_the_expected_ones(processor):
    vocabulary = processor.chat.tokenizer.get_vocab()
    assert processor.chat.eos_token_ids == (vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"])
    suppressed = set(processor.chat.suppressed_token_ids)
    named = {"<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"}
    empty = set(range(len(vocabulary), processor.config.text.vocab_size))
    assert suppressed == {vocabulary[token] for token in named} | empty


def test_decoding_stops_at_the_length_and_leaves_special_tokens_out(processor):
    ids = processor.chat.tokens("left<|im_end|>right")
    tokens = np.stack([ids, ids])[None, None]
    assert processor.decode(RolloutTokens(tokens, np.array([[[2, 0]]], np.int32))) == [[["left", ""]]]


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (ScenePrompt((video(2, 56, 56),), ("What is <|vision_end|>?",)), "contains <|vision_end|>"),
        (ScenePrompt((video(2, 56, 56),), ("a<|im_end|>",)), "contains <|im_end|>"),
        (ScenePrompt(("<|video_pad|>", video(2, 56, 56)), (COUNT,)), "contains <|video_pad|>"),
        (ScenePrompt((video(2, 56, 56),), (COUNT,), system="<|im_start|>"), "system prompt: contains"),
        (ScenePrompt((video(2, 56, 56),), ("a\udcff?",)), "character 2 is not valid Unicode"),
        (ScenePrompt((video(2, 56, 56),), ()), "at least one question"),
        (ScenePrompt((), (COUNT,)), "at least one video or image"),
        (ScenePrompt(("words alone",), (COUNT,)), "at least one video or image"),
        (ScenePrompt((Video(np.zeros((0, 56, 56, 3), np.uint8)),), (COUNT,)), "has no pixels"),
        (ScenePrompt((image(28, 6000),), (COUNT,)), "200 times"),
    ],
)
def test_prompts_with_structure_tokens_in_their_text_are_refused(processor, scene, message):
    with pytest.raises(InputError, match=message.replace("|", r"\|").replace("?", r"\?")):
        processor.encode(scene)


def test_absolute_time_needs_timestamps_and_uses_them(folders):
    processor = SceneProcessor.from_folder(folders["qwen2_5_vl"])
    frames = np.zeros((8, 56, 56, 3), np.uint8)
    with pytest.raises(InputError, match="timestamps"):
        processor.encode(ScenePrompt((Video(frames),), (COUNT,)))
    slow = processor.encode(ScenePrompt((Video(frames, np.arange(8) * 5.0),), (COUNT,)))
    fast = processor.encode(ScenePrompt((Video(frames, np.arange(8) * 0.5),), (COUNT,)))
    assert slow.question_start - fast.question_start == 3 * 2 * (10 - 1)
    qwen2 = SceneProcessor.from_folder(folders["qwen2_vl"])
    assert qwen2.encode(ScenePrompt((Video(frames),), (COUNT,))).question_start == fast.question_start - 3


def test_answers_that_do_not_fit_are_refused(processor):
    with pytest.raises(InputError, match="raise the answer length"):
        processor.encode_answers([[["left right back"]]], length=2)
    with pytest.raises(InputError, match="answer: contains"):
        processor.encode_answers([[["left<|im_end|>"]]])


def test_scenes_with_different_numbers_of_questions_are_refused(processor):
    with pytest.raises(InputError, match=r"same number of questions, found \[1, 2\]"):
        processor.tree_prompt([ScenePrompt((image(),), (COUNT,)), ScenePrompt((image(),), (COUNT, LEFT))])


def test_a_pickled_processor_gives_equal_prompts(processor):
    scene = ScenePrompt((video(2, 56, 56),), (COUNT,))
    again = pickle.loads(pickle.dumps(processor))
    np.testing.assert_array_equal(again.tree_prompt([scene]).scene_tokens, processor.tree_prompt([scene]).scene_tokens)


def edit(folder, tmp_path, file, change):
    """A copy of the folder with one JSON file changed; None deletes it."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = change(json.loads((copy / file).read_text())) if file.endswith(".json") else change(None)
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_text(json.dumps(content))
    return copy


SIZE_OF_IMAGES = {"shortest_edge": 4 * 784, "longest_edge": 300 * 784}
SIZE_OF_VIDEOS = {"shortest_edge": 8 * 784, "longest_edge": 500 * 784}
OLD_LIMITS = {"min_pixels": 5 * 784, "max_pixels": 600 * 784}
KIND_OF_IMAGES = {"image_processor_type": "Qwen2VLImageProcessor"}
KIND_OF_VIDEOS = {"video_processor_type": "Qwen2VLVideoProcessor"}


@pytest.mark.parametrize(
    "files",
    [
        {"preprocessor_config.json": KIND_OF_IMAGES | OLD_LIMITS},  # of 2024
        {"preprocessor_config.json": KIND_OF_IMAGES},
        {"preprocessor_config.json": KIND_OF_IMAGES | OLD_LIMITS | {"size": SIZE_OF_IMAGES}},
        {
            "preprocessor_config.json": KIND_OF_IMAGES | {"size": SIZE_OF_IMAGES},
            "video_preprocessor_config.json": KIND_OF_VIDEOS
            | {"size": SIZE_OF_VIDEOS, "cap_pixels_per_frame": True, "max_video_tokens": 5000},
        },
        {  # transformers 5
            "processor_config.json": {
                "image_processor": KIND_OF_IMAGES | {"size": SIZE_OF_IMAGES},
                "video_processor": KIND_OF_VIDEOS | {"size": SIZE_OF_VIDEOS},
            },
            "preprocessor_config.json": KIND_OF_IMAGES | OLD_LIMITS,
        },
    ],
    ids=["2024", "nothing said", "both", "two files", "nested"],
)
def test_pixel_limits_are_those_that_transformers_reads(folders, tmp_path, files):
    (tmp_path / "config.json").write_bytes((folders["qwen2_vl"] / "config.json").read_bytes())
    for file, content in files.items():
        (tmp_path / file).write_text(json.dumps(content))
    ours = read_processor_config(tmp_path, read_config(tmp_path))
    images, videos = Qwen2VLImageProcessor.from_pretrained(tmp_path), Qwen2VLVideoProcessor.from_pretrained(tmp_path)
    for limits, size in ((ours.image, images.size), (ours.video, videos.size)):
        assert (limits.minimum, limits.maximum) == (size["shortest_edge"], size["longest_edge"])
    assert ours.max_video_tokens == (videos.max_video_tokens if videos.cap_pixels_per_frame else None)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda raw: raw | {"video_token_id": 3}, r"<\|video_pad\|> is \d+ in the tokenizer, 3"),
        ("config.json", lambda raw: raw | {"vocab_size": 64}, "more tokens than config.json's vocab_size 64"),
        ("generation_config.json", lambda raw: {"eos_token_id": 3}, r"must include the id of <\|im_end\|>"),
        ("chat_template.jinja", lambda _: None, "no chat template"),
        ("tokenizer.json", lambda _: {"not": "a tokenizer"}, "no usable tokenizer"),
        ("preprocessor_config.json", lambda raw: raw | {"patch_size": 16}, "patch_size is 16, but 14 in config.json"),
        ("preprocessor_config.json", lambda raw: raw | {"image_mean": [0.5] * 3}, "image_mean"),
        ("preprocessor_config.json", lambda raw: raw | {"image_mean": 0.5}, "image_mean 0.5 is not supported"),
        ("preprocessor_config.json", lambda raw: raw | {"image_std": ["x", 1, 1]}, "image_std .* is not supported"),
        ("preprocessor_config.json", lambda raw: raw | {"size": 5}, "image processor: it and its size must be JSON"),
        ("tokenizer.json", lambda _: None, "has no tokenizer"),
        ("video_preprocessor_config.json", lambda raw: raw | {"size": {"longest_edge": "x"}}, "size.longest_edge 'x'"),
        (
            "video_preprocessor_config.json",
            lambda raw: raw | {"size": {"shortest_edge": 9000, "longest_edge": 8000}},
            "video processor: pixel limits 9000 to 8000",
        ),
        (
            "video_preprocessor_config.json",
            lambda raw: raw | {"cap_pixels_per_frame": True, "max_video_tokens": "5000"},
            "max_video_tokens '5000' must be an integer",
        ),
    ],
)
def test_folders_that_do_not_fit_together_are_refused(folders, tmp_path, file, change, message):
    with pytest.raises(InputError, match=message) as caught:
        SceneProcessor.from_folder(edit(folders["qwen2_vl"], tmp_path, file, change))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_vision_tokens_is_refused(folders, tmp_path):
    def without(raw):
        raw["added_tokens"] = [token for token in raw["added_tokens"] if "vision" not in token["content"]]
        return raw

    copy = edit(folders["qwen2_vl"], tmp_path, "tokenizer.json", without)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    for name, kept in (("added_tokens_decoder", dict), ("additional_special_tokens", list)):
        items = settings[name].items() if kept is dict else settings[name]
        settings[name] = kept(item for item in items if "vision" not in str(item))
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"has no <\|vision_start\|>"):
        SceneProcessor.from_folder(copy)


def test_code_of_a_folder_is_never_run(folders, tmp_path):
    copy, proof = tmp_path / "copy", tmp_path / "it was run"
    shutil.copytree(folders["qwen2_vl"], copy)
    (copy / "own_code.py").write_text(f"open({str(proof)!r}, 'w')\nclass Own: pass\n")
    for file, auto_map in (
        ("config.json", {"AutoConfig": "own_code.Own", "AutoModel": "own_code.Own"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["own_code.Own", "own_code.Own"]}),
        ("preprocessor_config.json", {"AutoImageProcessor": "own_code.Own", "AutoProcessor": "own_code.Own"}),
    ):
        raw = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps(raw | {"auto_map": auto_map}))
    with contextlib.suppress(InputError):  # transformers may refuse the tokenizer, or take its own class
        SceneProcessor.from_folder(copy)
    assert not proof.exists()


def test_a_chat_template_that_writes_no_placeholder_is_refused(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders["qwen2_vl"], copy)
    (copy / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    with pytest.raises(InputError, match="writes 0 vision blocks for 1"):
        SceneProcessor.from_folder(copy).encode(ScenePrompt((image(),), (COUNT,)))
    (copy / "chat_template.jinja").write_text("{% for m in %}")
    with pytest.raises(InputError, match="chat template"):
        SceneProcessor.from_folder(copy).encode(ScenePrompt((image(),), (COUNT,)))


@pytest.mark.slow
def test_the_processor_works_without_torch(folders):
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.startswith("torch") else find(name, package)
sys.modules["torch"] = None
from pathlib import Path
from jaxvsr.models.inputs.processor import SceneProcessor
print(SceneProcessor.from_folder(Path(sys.argv[1])).chat.render([{"role": "user", "content": "hi"}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folders["qwen2_vl"])], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n\n")
