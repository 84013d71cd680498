"""The phantom's abdomen: the organs that its CT and MR tasks share, and look-alikes around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .body import moved, rough, trunk, within
from .shapes import Blend, Canvas, Cut, Ellipsoid, Shape, Tube

__all__ = ["abdomen"]

Vector = tuple[float, float, float]


def abdomen(canvas: Canvas, rng: np.random.Generator, pathology: bool) -> None:
    """Paint an abdomen: trunk, bowel, organs, vessels, lung bases, lesions."""
    fat = float(rng.uniform(0.07, 0.14))
    rho = trunk(canvas, rng, width=118, depth=86, fat=fat)
    for side in (-1.0, 1.0):
        psoas = Tube(((side * 24, -34, 20), (side * 30, -32, -40), (side * 38, -26, -130)), (5, 14, 17))
        canvas.paint(psoas, "muscle", over=("fat",))
    inside = rho < 0.9 - fat
    _bowel(canvas, rng, inside)
    liver = _liver(canvas, rng, inside)
    _upper_organs(canvas, rng, inside)
    _kidneys(canvas, rng)
    _great_vessels(canvas, rng)
    _lungs_above(canvas, rng, inside)
    _liver_lesions(canvas, rng, liver, pathology)


def _liver(canvas: Canvas, rng: np.random.Generator, inside: NDArray[np.bool_]) -> Shape:
    right = Ellipsoid((56, 2, 30), (50, 62, 58), (0, 12, 0))
    left = Ellipsoid((4, 36, 46), (50, 32, 30), (0, 18, -8))
    under = Ellipsoid((8, -8, -42), (62, 62, 62))
    liver = moved(rng, Cut(Blend(right, left, 30), under), shift=5, turn=6)
    index = canvas.near(liver)
    field = liver.field(canvas.points[:, index]) + rough(rng, 2.5)(canvas.points[:, index])
    canvas.fill(index[(field < 0) & inside[index]], "liver", "liver")
    for path, radii in (
        (((20, 4, 66), (40, 0, 48), (66, -18, 22)), (5, 4.5, 2.5)),
        (((20, 8, 66), (46, 30, 50), (68, 40, 34)), (5, 4, 2.5)),
        (((20, 10, 66), (4, 34, 54), (-20, 44, 46)), (4.5, 4, 2)),
        (((22, 16, 4), (32, 14, 22), (58, 14, 20), (80, 0, 6)), (7, 6.5, 5, 2.5)),
    ):
        canvas.paint(moved(rng, Tube(path, radii), shift=4, turn=6), "vessel", None, over=("liver",))
    return liver


def _upper_organs(canvas: Canvas, rng: np.random.Generator, inside: NDArray[np.bool_]) -> None:
    crescent = Cut(Ellipsoid((-70, -24, 34), (27, 42, 40), (18, 0, -24)), Ellipsoid((-42, 2, 26), (22, 34, 50)))
    spleen = moved(rng, crescent, shift=5, scale=0.14)
    index = canvas.near(spleen)
    field = spleen.field(canvas.points[:, index]) + rough(rng, 1.5)(canvas.points[:, index])
    canvas.fill(index[(field < 0) & inside[index]], "spleen", "spleen")
    body = Tube(((-40, 6, 62), (-54, 22, 36), (-34, 42, 8), (-2, 44, -4)), (22, 24, 18, 11))
    stomach, ripple = moved(rng, body, shift=6, scale=0.15), rough(rng, 1.5)
    canvas.paint(stomach, "wall", over=("fat", "bowel", "gas", "liver"), ripple=ripple)
    canvas.paint(stomach, "lumen", over=("wall",), ripple=ripple, grow=-5.0)
    level = rng.uniform(30, 46)
    gas = (canvas.tissue == canvas.tissue_code["lumen"]) & (canvas.points[1] > level)
    canvas.fill(gas, "gas")
    gland = Tube(((30, 10, -14), (8, 22, -2), (-24, 10, 10), (-52, -14, 20)), (13, 9.5, 9, 7))
    pancreas = moved(rng, gland, shift=4, scale=0.12)
    canvas.paint(pancreas, "pancreas", "pancreas", over=("fat", "bowel"), ripple=rough(rng, 1.5, (14.0, 30.0)))
    pear = Blend(Ellipsoid((46, 40, -8), (14, 18, 17), (20, 0, 0)), Ellipsoid((38, 26, 6), (7, 10, 10)), 8)
    gallbladder = moved(rng, pear, shift=5, scale=0.2, turn=15)
    canvas.paint(gallbladder, "bile", "gallbladder", ripple=rough(rng, 0.8))


def _kidneys(canvas: Canvas, rng: np.random.Generator) -> None:
    for side, name in ((-1.0, "left kidney"), (1.0, "right kidney")):
        height = 0.0 if side < 0 else -14.0
        bean = Cut(
            Ellipsoid((side * 58, -36, height), (24, 22, 43), (8, side * 10, side * -22)),
            Ellipsoid((side * 38, -24, height), (15, 13, 15)),
        )
        kidney = moved(rng, bean, shift=5, scale=0.12)
        ripple = rough(rng, 1.0)
        canvas.paint(kidney, "fat", grow=4.0)
        canvas.paint(kidney, "cortex", name, ripple=ripple)
        canvas.paint(kidney, "medulla", None, ripple=rough(rng, 2.5, (14.0, 24.0)), grow=-8.0, over=("cortex",))
        if rng.uniform() < 0.35:
            low, high = (side * 60 - 14, -52, height - 26), (side * 60 + 14, -30, height + 26)
            canvas.paint(Ellipsoid(within(rng, low, high), (8, 8, 8)), "cyst", None, over=("cortex", "medulla"))


def _great_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    aorta = Tube(((-10, -8, 140), (-9, -7, 20), (-6, -9, -60), (-4, -12, -140)), (12.5, 12, 11, 10))
    vena_cava = Tube(((14, -10, -140), (18, -7, -30), (20, -4, 30), (24, 4, 74), (24, 6, 130)), (11, 12, 12, 11, 11))
    canvas.paint(moved(rng, vena_cava, shift=3, turn=2), "vein")
    canvas.paint(moved(rng, aorta, shift=3, turn=2), "artery", "aorta", ripple=rough(rng, 0.6))


def _lungs_above(canvas: Canvas, rng: np.random.Generator, inside: NDArray[np.bool_]) -> None:
    x, y, z = canvas.points
    top = rng.uniform(78, 90)
    dome = top - ((np.abs(x) - 48) / 60) ** 2 * 30 - (y / 80) ** 2 * 46
    above = inside & (z > dome) & (np.abs(x) > 16 - 0.1 * (y + 30))
    free = ~np.isin(
        canvas.tissue, [canvas.tissue_code[t] for t in ("bone", "marrow", "disc", "artery", "fluid", "cord")]
    )
    canvas.fill(above & free, "lung")


def _bowel(canvas: Canvas, rng: np.random.Generator, inside: NDArray[np.bool_]) -> None:
    """Colon, loops and nodes: neighbours whose intensities are those of the organs."""
    loops = [Tube(((s * 86, -8, -140), (s * 84, -4, -40), (s * 78, 10, -8)), (15, 15, 12)) for s in (-1.0, 1.0)]
    for _ in range(int(rng.integers(7, 11))):
        start = np.asarray(within(rng, (-68, -4, -105), (68, 50, -22)))
        turns = start + np.cumsum(rng.uniform((-26, -10, -14), (26, 14, 14), size=(3, 3)), axis=0)
        (a, b, c), r = (tuple(float(v) for v in t) for t in turns), float(rng.uniform(9, 14))
        loops.append(Tube(((a[0], a[1], a[2]), (b[0], b[1], b[2]), (c[0], c[1], c[2])), (r, r, r)))
    for loop in loops:
        filling = str(rng.choice(["bowel", "bowel", "lumen", "gas"]))
        canvas.paint(loop, "wall", over=("fat",))
        canvas.paint(loop, filling, over=("wall",), grow=-3.0)
    for _ in range(int(rng.integers(4, 8))):
        r = float(rng.uniform(7, 12))
        node = Ellipsoid(within(rng, (-75, -35, -90), (75, 40, 40)), (r, r * 0.8, r * 1.1))
        canvas.paint(node, "node", over=("fat",))
    canvas.fill(~inside & np.isin(canvas.tissue, [canvas.tissue_code[t] for t in ("wall", "bowel", "node")]), "muscle")


def _liver_lesions(canvas: Canvas, rng: np.random.Generator, liver: Shape, pathology: bool) -> None:
    """Tumours (a target) and cysts (not one), both only in the liver."""
    for kind, count in (("cyst", int(rng.integers(0, 3))), ("tumour", int(rng.integers(1, 4)) if pathology else 0)):
        for _ in range(count):
            r = float(rng.uniform(5, 9) if kind == "cyst" else rng.uniform(13, 20))
            centre = _deep_point(rng, liver, 0.6 * r)
            lump = Ellipsoid(centre, (r, r * float(rng.uniform(0.75, 1.2)), r * float(rng.uniform(0.75, 1.2))))
            structure = "liver tumour" if kind == "tumour" else None
            canvas.paint(lump, kind, structure, over=("liver", "vessel"), ripple=rough(rng, 0.1 * r, (10.0, 24.0)))


def _deep_point(rng: np.random.Generator, shape: Shape, depth: float) -> Vector:
    """A position inside the shape that does not depend on the sampling grid."""
    centre, reach = shape.bounds()
    for _ in range(400):
        guess = np.asarray(centre) + rng.uniform(-reach, reach, size=3)
        if float(shape.field(guess.astype(np.float32).reshape(3, 1))[0]) < -depth and guess[2] < 70:
            return float(guess[0]), float(guess[1]), float(guess[2])
    return centre
