"""Training as plainly as it can be written, with transformers and torch alone: what our losses must equal.

Each sample is ``{"messages": [...], "images": [PIL images], "videos": [{"frames", "indices", "fps", "total"}]}`` with
the frames (T, H, W, 3) that are shown to the model; each step is a list of samples, one forward pass a sample.
"""

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata


def reference_losses(folder: Path, steps: list, **adamw: float) -> list[float]:
    """The loss of each step: summed over the supervised tokens of the step, divided by their number."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), **adamw)
    losses = []
    for samples in steps:
        inputs = [model_inputs(processor, sample) for sample in samples]
        labels = [answer_labels(processor.tokenizer, each["input_ids"]) for each in inputs]
        num_tokens = sum((each[:, 1:] != -100).sum() for each in labels)
        sums = [cross_entropy_sum(logits_of(model, each), target) for each, target in zip(inputs, labels, strict=True)]
        loss = sum(sums) / num_tokens
        loss.backward()
        for parameter in model.parameters():  # what no sample of the step used still decays, as in one big batch
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def model_inputs(processor, sample: dict) -> dict:
    """What the processor gives for one sample. Omni's takes one video a call, its metadata bare, and fewer options."""
    is_omni = processor.image_token == "<image>"
    media = {} if is_omni else {"return_mm_token_type_ids": True}
    if sample["images"]:
        media["images"] = sample["images"]
    if sample["videos"]:
        metadata = [
            VideoMetadata(fps=video["fps"], total_num_frames=video["total"], frames_indices=list(video["indices"]))
            for video in sample["videos"]
        ]
        media |= {"video_metadata": metadata[0]} if is_omni else {"video_metadata": metadata, "return_metadata": True}
        media |= {"videos": [video["frames"] for video in sample["videos"]], "do_sample_frames": False}
    text = processor.apply_chat_template(sample["messages"], tokenize=False)
    inputs = processor(text=[text], return_tensors="pt", **media)
    return {name: value for name, value in inputs.items() if name != "video_metadata"}


def answer_labels(tokenizer, input_ids: torch.Tensor) -> torch.Tensor:
    """The ids of each answer with its end of turn; -100 elsewhere."""
    ids, labels = input_ids[0].tolist(), torch.full_like(input_ids, -100)
    header, end = tokenizer("<|im_start|>assistant\n")["input_ids"], tokenizer.convert_tokens_to_ids("<|im_end|>")
    for begin in range(len(ids)):
        if ids[begin : begin + len(header)] == header:
            first, last = begin + len(header), ids.index(end, begin)
            labels[0, first : last + 1] = input_ids[0, first : last + 1]
    return labels


def cross_entropy_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[0, :-1].float(), labels[0, 1:], reduction="sum")


def logits_of(model, inputs: dict) -> torch.Tensor:
    if model.config.model_type != "nemotron_h_omni":
        return model(**inputs).logits
    # Omni's own forward crashes on video in transformers 5.23: its features are put in place by hand.
    model.vision_model.eval()
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    features = None
    if "pixel_values" in inputs:
        output = model.get_image_features(inputs["pixel_values"], inputs["image_grid_hw"], return_dict=True)
        features = torch.cat(output.pooler_output)
    elif "pixel_values_videos" in inputs:
        output = model.get_video_features(inputs["pixel_values_videos"], return_dict=True)
        features = output.pooler_output.flatten(0, 1)
    if features is not None:
        embeds = embeds.masked_scatter((inputs["input_ids"] == model.config.image_token_id)[..., None], features)
    return model(inputs_embeds=embeds).logits
