"""Draw a small data set of shapes: boxes and masks in the COCO layout, label maps in the Cityscapes layout, mosaics.

    python tools/make_demo_data.py data/demo

Deterministic: the same scenes on every machine. Both layouts hold the same scenes:

    data/demo/annotations/instances_{train,val}2017.json   data/demo/{train,val}2017/SCENE.jpg
    data/demo/leftImg8bit/{train,val}/demo/SCENE_leftImg8bit.png
    data/demo/gtFine/{train,val}/demo/SCENE_gtFine_labelTrainIds.png    0 is the background, a shape's class + 1

For classification, there are 32x32 images of one shape each, tiled into one picture per class:

    data/demo/mosaics/{train,val}_CLASS.png
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

CLASSES = ('disc', 'box', 'triangle', 'star', 'cross')
HEIGHT, WIDTH = 256, 320
SIZES = (16, 200)
TILE, TILES_A_ROW = 32, 20
OBJECTS = (1, 8)
VISIBLE = 0.5
"""The part of a shape that must stay visible."""


def outline(kind: str) -> np.ndarray:
    """Corners of a shape inside the unit disc, (n, 2)."""
    if kind == 'disc':
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        return np.stack([np.cos(angles), np.sin(angles)], 1)
    if kind == 'box':
        return np.array([(-0.8, -0.6), (0.8, -0.6), (0.8, 0.6), (-0.8, 0.6)])
    if kind == 'triangle':
        angles = np.pi / 2 + np.arange(3) * 2 * np.pi / 3
        return np.stack([np.cos(angles), np.sin(angles)], 1)
    if kind == 'star':
        angles = np.pi / 2 + np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    a, b = 0.3, 0.95
    return np.array(
        [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    )


def texture(
    rng: np.random.Generator,
    contrast: float,
    height: int = HEIGHT,
    width: int = WIDTH,
    colours: tuple[float, float] = (40, 215),
) -> np.ndarray:
    """Return a smooth random color pattern, (height, width, 3) of float."""
    image = np.full((height, width, 3), rng.uniform(*colours, 3))
    for cells in (4, 16, 64):
        noise = rng.normal(0, contrast / np.sqrt(cells / 4), (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


def shape(rng: np.random.Generator, kind: str, size: float, height: int, width: int) -> np.ndarray:
    """Return the mask (height, width) of a shape, rotated and placed at random."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    corners = outline(kind) @ turn.T
    corners *= size / np.ptp(corners, 0).max()
    corners -= corners.min(0)
    extent = corners.max(0)
    corners += rng.uniform(0, 1, 2) * (np.array([width, height]) - 1 - extent)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    return mask


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Draw a scene: the image (uint8, BGR), the map of object numbers (0 is the background) and each object's class."""
    image = texture(rng, 25)
    objects = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes: list[int] = []
    areas: list[int] = []
    wanted = rng.integers(OBJECTS[0], OBJECTS[1] + 1)
    for _ in range(40):
        if len(classes) == wanted:
            break
        kind = int(rng.integers(len(CLASSES)))
        size = np.exp(rng.uniform(*np.log(SIZES)))
        mask = shape(rng, CLASSES[kind], size, HEIGHT, WIDTH)
        candidate = np.where(mask > 0, len(classes) + 1, objects)
        left = np.bincount(candidate.ravel(), minlength=len(classes) + 2)[1:-1]
        if any(now < VISIBLE * area for now, area in zip(left, areas, strict=True)):
            continue
        objects = candidate.astype(np.uint8)
        classes.append(kind)
        areas.append(int(mask.sum()))
        image = np.where(mask[..., None] > 0, texture(rng, 12), image)
    image += rng.normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), objects, classes


def write_split(root: Path, split: str, scenes: int, seed: int) -> None:
    """Draw a split and write it in both layouts."""
    images = root / f'{split}2017'
    cityscapes = root / 'leftImg8bit' / split / 'demo', root / 'gtFine' / split / 'demo'
    for folder in (images, root / 'annotations', *cityscapes):
        folder.mkdir(parents=True, exist_ok=True)
    records: list[dict] = []
    annotations: list[dict] = []
    for index in range(scenes):
        image, objects, classes = draw(np.random.default_rng([seed, split == 'val', index]))
        name = f'{split}_{index:06d}'
        cv2.imwrite(str(images / f'{name}.jpg'), image)
        cv2.imwrite(str(cityscapes[0] / f'{name}_leftImg8bit.png'), image)
        labels = np.array([0, *(kind + 1 for kind in classes)], np.uint8)[objects]
        cv2.imwrite(str(cityscapes[1] / f'{name}_gtFine_labelTrainIds.png'), labels)
        records.append(dict(id=index + 1, file_name=f'{name}.jpg', height=HEIGHT, width=WIDTH))
        for number, kind in enumerate(classes, 1):
            encoded = coco_mask.encode(np.asfortranarray(objects == number))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=kind + 1,
                    bbox=coco_mask.toBbox(encoded).tolist(),
                    area=int(coco_mask.area(encoded)),
                    segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode()),
                    iscrowd=0,
                )
            )
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(CLASSES)]
    with open(root / 'annotations' / f'instances_{split}2017.json', 'w') as file:
        json.dump(dict(images=records, annotations=annotations, categories=categories), file)


def write_mosaics(root: Path, split: str, images: int, seed: int) -> None:
    """Draw images of each class and write them as one mosaic per class."""
    (root / 'mosaics').mkdir(parents=True, exist_ok=True)
    for number, kind in enumerate(CLASSES):
        rows = -(-images // TILES_A_ROW)
        mosaic = np.zeros((rows * TILE, TILES_A_ROW * TILE, 3), np.uint8)
        for index in range(rows * TILES_A_ROW):
            rng = np.random.default_rng([seed, split == 'val', index, number])
            mask = shape(rng, kind, rng.uniform(14, 28), TILE, TILE)
            dark, bright = texture(rng, 12, TILE, TILE, (40, 120)), texture(rng, 12, TILE, TILE, (130, 215))
            image = np.where(mask[..., None] > 0, bright, dark)
            image += rng.normal(0, 4, image.shape)
            top, left = index // TILES_A_ROW * TILE, index % TILES_A_ROW * TILE
            mosaic[top : top + TILE, left : left + TILE] = image.clip(0, 255)
        cv2.imwrite(str(root / 'mosaics' / f'{split}_{kind}.png'), mosaic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='folder to write; created if it does not exist')
    parser.add_argument('--train', type=int, default=400, help='training scenes')
    parser.add_argument('--val', type=int, default=100, help='validation scenes')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    for split, scenes in (('train', args.train), ('val', args.val)):
        write_split(args.root, split, scenes, args.seed)
        write_mosaics(args.root, split, scenes, args.seed)
    print(
        f'{args.train} training and {args.val} validation scenes of {len(CLASSES)} classes in {args.root}, '
        'and small images of each class'
    )


if __name__ == '__main__':
    main()
