"""Inference on a folder of images, with painted images and a JSON file."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from .checkpoint_file import check_fits, read_checkpoint
from .checks.files import innermost
from .compat.config_prefix import read_config
from .memory.fit import keep_plan
from .registered import kind_of

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def predict(
    inputs: 'str | Path',
    weights: 'str | Path',
    out_dir: 'str | Path',
    config: 'str | Path | None' = None,
    score_threshold: float = 0.3,
    device: str | None = None,
) -> Iterator[tuple[Path, Any]]:
    """Run MMDetection's, MMSegmentation's or MMPretrain's inferencer on images.

    Writes the painted image to ``out_dir/vis/NAME``, a segmentor's label map to ``out_dir/label_maps/STEM.png`` (class
    indices), and all predictions by image name to ``out_dir/predictions.json``.

    Args:
        inputs: An image or a folder of images.
        weights: A checkpoint, as trained or published.
        out_dir: Folder to write to.
        config: The model's config; None uses the one in the checkpoint.
        score_threshold: Minimum score of a detection to paint and write.
        device: Device to run on; None uses a GPU if there is one.

    Yields:
        The path of each image and its prediction: a detector's ``[{"label", "score", "bbox": [x1, y1, x2, y2]}]`` in
        pixels, with masks also ``"mask"`` (COCO's run-length encoding); a segmentor's share of each class,
        ``{"road": 0.41, ...}``; a classifier's five highest scores, ``[{"label", "score"}]``.

    Raises:
        FileNotFoundError: Inputs, weights or config do not exist, or the folder has no images.
        ValueError: There is no config, or the weights do not fit it; the threshold is outside [0, 1]; ``device`` is a
            GPU, but there is none; or files would overwrite each other. After all others have been processed: some
            images cannot be read.
    """
    images = find_images(Path(inputs))
    if not Path(weights).is_file():
        raise FileNotFoundError(f'there is no checkpoint {weights}')
    if not 0 <= score_threshold <= 1:
        raise ValueError(f'--score-threshold {score_threshold} must be in [0, 1]')
    if device and device.startswith('cuda') and not torch.cuda.is_available():
        raise ValueError(f'--device {device}: there is no GPU')
    found = keep_plan(read_config(config), str(weights)) if config else config_of(weights)
    scope = found.get('default_scope')
    out_dir = Path(out_dir)
    _check_names(images, out_dir, scope == 'mmseg')
    run = dict(mmseg=_segmentor, mmpretrain=_classifier).get(scope, _detector)(found, str(weights), device)
    predictions, odd = {}, []
    try:
        for image in images:
            if not _readable(image):
                odd.append(image)
                continue
            # By path: MMLab's inferencers do not know that an array is BGR.
            predictions[image.name], painted, labels = run(str(image), score_threshold)
            mmcv.imwrite(painted[..., ::-1], str(out_dir / 'vis' / image.name))
            if labels is not None:
                mmcv.imwrite(labels, str(out_dir / 'label_maps' / f'{image.stem}.png'))
            yield image, predictions[image.name]
    finally:
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / 'predictions.json').write_text(json.dumps(predictions, indent=1))
    if odd:
        raise ValueError(f'OpenCV cannot read {len(odd)} of {len(images)} images: {", ".join(map(str, odd))}')


def find_images(inputs: Path) -> list[Path]:
    """Return an image, or the images of a folder sorted by name.

    Raises:
        FileNotFoundError: There is no image.
    """
    if inputs.is_file():
        return [inputs]
    if not inputs.is_dir():
        raise FileNotFoundError(f'there is no image or folder {inputs}')
    images = sorted(path for path in inputs.iterdir() if path.suffix.lower() in IMAGES)
    if not images:
        raise FileNotFoundError(f'{inputs} has no images ({", ".join(IMAGES)})')
    return images


def _check_names(images: list[Path], out_dir: Path, label_maps: bool) -> None:
    if images[0].parent.resolve() == (out_dir / 'vis').resolve():
        raise ValueError(f'--out-dir {out_dir} would overwrite the images in {images[0].parent}: use another folder')
    if label_maps:
        by_stem: dict[str, Path] = {}
        for path in images:
            other = by_stem.setdefault(path.stem, path)
            if other != path:
                raise ValueError(f'{other.name} and {path.name} would share one label map: rename one')


def _readable(image: Path) -> bool:
    try:
        return mmcv.imread(image) is not None
    except cv2.error:  # an empty file
        return False


def config_of(weights: 'str | Path') -> Config:
    """Return the config stored in a checkpoint.

    Raises:
        ValueError: It has none.
    """
    meta = read_checkpoint(weights).get('meta', {})
    if 'cfg' not in meta:
        raise ValueError(f'{weights} holds no config: set it with --config')
    return Config.fromstring(meta['cfg'], '.py')


def _loaded(kind: type, config: Config, weights: str, device: str | None) -> Any:
    """Return an inferencer with checked weights, and the classes of the checkpoint or else of the config's data set."""
    try:
        inferencer = kind(config, weights, device=device)
    except RuntimeError as error:  # other cuts, other shapes
        raise ValueError(f'{weights} does not fit the config: {error}') from error
    inferencer.show_progress = False
    check_fits(inferencer.model, weights)
    if 'dataset_meta' not in read_checkpoint(weights).get('meta', {}):
        dataset = DATASETS.build(dict(innermost(config.test_dataloader.dataset), lazy_init=True, pipeline=[]))
        meta = {key: dataset.metainfo[key] for key in ('classes', 'palette') if key in dataset.metainfo}
        if 'classes' not in meta:
            raise ValueError(
                f'neither {weights} nor the config names the classes: set metainfo.classes of its data set'
            )
        inferencer.model.dataset_meta = meta
        if inferencer.visualizer is not None:
            inferencer.visualizer.dataset_meta = meta
    return inferencer


def _detector(config: Config, weights: str, device: str | None) -> Callable:
    from mmdet.apis import DetInferencer

    inferencer = _loaded(DetInferencer, config, weights, device)
    classes = inferencer.model.dataset_meta['classes']

    def run(image: str, score_threshold: float) -> tuple:
        result = inferencer(image, return_vis=True, pred_score_thr=score_threshold)
        found = result['predictions'][0]
        masks = found.get('masks') or [None] * len(found['labels'])
        boxes = []
        for label, score, box, mask in zip(found['labels'], found['scores'], found['bboxes'], masks, strict=True):
            if score >= score_threshold:
                place = dict(bbox=[round(edge, 1) for edge in box]) | (dict(mask=mask) if mask else {})
                boxes.append(dict(label=classes[label], score=round(score, 4)) | place)
        return boxes, result['visualization'][0], None

    return run


def _segmentor(config: Config, weights: str, device: str | None) -> Callable:
    from mmseg.apis import MMSegInferencer

    inferencer = _loaded(MMSegInferencer, config, weights, device)
    classes = inferencer.model.dataset_meta['classes']

    def run(image: str, score_threshold: float) -> tuple:
        result = inferencer(image, return_vis=True)
        labels = result['predictions'].astype(np.uint8)
        counts = np.bincount(labels.ravel(), minlength=len(classes)).tolist()
        shares = {name: count / labels.size for name, count in zip(classes, counts, strict=True) if count}
        return shares, result['visualization'], labels

    return run


def _classifier(config: Config, weights: str, device: str | None) -> Callable:
    from mmpretrain import ImageClassificationInferencer
    from mmpretrain.visualization import UniversalVisualizer

    inferencer = _loaded(ImageClassificationInferencer, config, weights, device)
    classes = inferencer.classes or inferencer.model.dataset_meta['classes']
    visualizer = UniversalVisualizer()
    # A data set's images in memory are RGB, images loaded by its pipeline are BGR.
    pipeline = innermost(config.test_dataloader.dataset).pipeline
    order = 'bgr' if any(kind_of(transform) == 'LoadImageFromFile' for transform in pipeline) else 'rgb'

    def run(image: str, score_threshold: float) -> tuple:
        # Calling the inferencer would show a progress bar for each image.
        (batch,) = inferencer.preprocess([mmcv.imread(image, channel_order=order)])
        (sample,) = inferencer.forward(batch)
        scores, labels = sample.pred_score.topk(min(5, len(sample.pred_score)))
        found = [dict(label=classes[i], score=round(float(score), 4)) for score, i in zip(scores, labels, strict=True)]
        painted = visualizer.visualize_cls(
            mmcv.imread(image, channel_order='rgb'), sample, classes=classes, rescale_factor=1, draw_gt=False
        )
        return found, painted, None

    return run
