"""What transformers' processors make of a conversation."""

import numpy as np
import torch
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from jaxvsr.models.inputs.processor import Image, Video
from jaxvsr.models.model_config import VisionConfig


def hugging_face_inputs(folder, media, question, system=None, answer=None):
    """Tokens and pixels that transformers' processor makes of the same conversation."""
    theirs = AutoProcessor.from_pretrained(folder)
    kinds = {str: "text", Video: "video", Image: "image"}
    content = [{"type": kinds[type(item)]} | ({"text": item} if isinstance(item, str) else {}) for item in media]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    text = theirs.apply_chat_template(messages, add_generation_prompt=answer is None)
    frames = [torch.tensor(item.frames).permute(0, 3, 1, 2) for item in media if isinstance(item, Video)]
    images = [item.pixels for item in media if isinstance(item, Image)]
    loose = {"size": {"shortest_edge": 1, "longest_edge": 28**5}}
    metadata = [_metadata(item) for item in media if isinstance(item, Video)]
    return theirs(
        text=[text],
        videos=frames or None,
        images=images or None,
        videos_kwargs={"do_sample_frames": False, "video_metadata": metadata or None, **loose},
        images_kwargs=loose,
        return_tensors="np",
    )


def _metadata(video: Video) -> VideoMetadata:
    """When the frames were seen, as frames of a video that has one every millisecond."""
    seconds = np.arange(len(video.frames)) if video.timestamps is None else video.timestamps
    indices = [round(1000 * second) for second in seconds]
    return VideoMetadata(indices[-1] + 1, 1000, frames_indices=indices)


def to_uint8(values, vision=VisionConfig):
    """Invert the normalisation; the remainder of rounding must be nothing but float noise."""
    channels = values.reshape(len(values), 3, -1)
    pixels = (channels * np.array(vision.pixel_std)[:, None] + np.array(vision.pixel_mean)[:, None]) * 255
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-3
    return np.rint(pixels).astype(np.uint8).reshape(values.shape)
