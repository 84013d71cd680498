"""The phantom's chest: a four-chambered heart with great vessels between the lungs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .body import moved, rough, trunk
from .shapes import Blend, Canvas, Cut, Ellipsoid, Placed, Shape, Tube

__all__ = ["thorax"]

Vector = tuple[float, float, float]
TURN: Vector = (-30.0, 0.0, 50.0)
# Turns the left ventricle's long axis from +y (the apex) to the left, front and down.
CENTRE: Vector = (-24.0, 12.0, -14.0)


def thorax(canvas: Canvas, rng: np.random.Generator, pathology: bool) -> None:
    """Paint a chest: trunk, lungs, liver dome, heart, vessels, scars."""
    fat = float(rng.uniform(0.06, 0.12))
    rho = trunk(canvas, rng, width=136, depth=96, fat=fat)
    x, y, z = canvas.points
    inside = rho < 0.9 - fat
    canvas.paint(Tube(((0, 74, -60), (0, 72, 60)), (8, 10)), "bone")
    middle = Blend(
        Ellipsoid((-10, 12, -20), (58, 56, 58)), Tube(((0, -30, -120), (0, 0, 20), (0, 10, 120)), (26, 30, 30)), 24
    )
    spread = middle.field(canvas.points) + rough(rng, 2.0)(canvas.points)
    free = canvas.tissue == canvas.tissue_code["fat"]
    canvas.fill(inside & free & (spread > 0), "lung")
    dome = -44 - ((x - 44) / 70) ** 2 * 30 - (y / 80) ** 2 * 34 + rng.uniform(-6, 6)
    below = inside & (z < dome) & np.isin(canvas.tissue, [canvas.tissue_code[t] for t in ("fat", "lung")])
    canvas.fill(below, "fat")
    canvas.fill(below & (z < dome - 4) & (x > -34), "liver", "liver")
    canvas.fill(below & (z < dome - 4) & (x < -52) & (y < 20), "spleen", "spleen")
    _vessels(canvas, rng)
    _heart(canvas, rng, pathology)


def _vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    descending = Tube(
        ((-16, -40, -130), (-18, -40, 10), (-14, -30, 52), (-2, -6, 66), (12, 10, 52), (6, 6, 22)),
        (11, 11.5, 12, 13, 14, 13),
    )
    pulmonary = Tube(((-6, 30, 14), (-12, 18, 34), (-4, -6, 40), (34, -14, 34)), (12, 12, 10, 8))
    vena_cava = Tube(((34, 0, 110), (34, -2, 20), (26, -6, -70), (24, -8, -130)), (8, 9, 10, 11))
    canvas.paint(moved(rng, vena_cava, shift=2, turn=2, scale=0.04), "vein", over=("fat", "lung", "liver"))
    canvas.paint(moved(rng, pulmonary, shift=2, turn=3, scale=0.05), "blood")
    canvas.paint(moved(rng, descending, shift=2, turn=2, scale=0.04), "artery", "aorta", ripple=rough(rng, 0.5))


def _heart(canvas: Canvas, rng: np.random.Generator, pathology: bool) -> None:
    wall = float(rng.uniform(9.5, 13.0))
    sphere = Ellipsoid(CENTRE, (30, 30, 30))
    pose = moved(rng, sphere, shift=4, scale=0.08, turn=8)

    def placed(shape: Shape, turn: Vector = (0.0, 0.0, 0.0)) -> Placed:
        """The heart moves as one; ``turn`` tilts a shape about the left ventricle's centre first."""
        return Placed(Placed(shape, CENTRE, angles=turn), CENTRE, pose.shift, pose.scale, pose.angles)

    cx, cy, cz = CENTRE
    valve = Ellipsoid((cx, cy - 88, cz), (66, 62, 66))
    ventricle = placed(Cut(Ellipsoid(CENTRE, (33, 46, 33)), valve), TURN)
    cavity = placed(Cut(Ellipsoid((cx, cy - 4, cz), (33 - wall, 46 - wall, 33 - wall)), valve), TURN)
    _right_heart_and_atria(canvas, rng, ventricle, placed)
    muscle_over = ("fat", "blood", "lung", "liver", "spleen")
    canvas.paint(ventricle, "myocardium", "myocardium", over=muscle_over, ripple=rough(rng, 0.7))
    papillary = rough(rng, 1.0, (14.0, 30.0))
    canvas.paint(cavity, "blood", "left ventricle", over=("myocardium",), ripple=papillary)
    for _ in range(int(rng.integers(1, 3)) if pathology else 0):
        angle, along, ring = rng.uniform(0, 2 * np.pi), float(rng.uniform(-8, 24)), 33 - wall * 0.75
        spot = (cx + ring * float(np.cos(angle)), cy + along, cz + ring * float(np.sin(angle)))
        r = float(rng.uniform(11, 17))
        patch = placed(Ellipsoid(spot, (r, r * 1.2, r)), TURN)
        canvas.paint(patch, "scar", "scar", over=("myocardium",), ripple=rough(rng, 1.0, (10.0, 24.0)))


def _right_heart_and_atria(
    canvas: Canvas, rng: np.random.Generator, ventricle: Shape, placed: Callable[[Shape], Placed]
) -> None:
    right = placed(Blend(Ellipsoid((12, 30, -14), (32, 27, 34)), Ellipsoid((-2, 36, 6), (16, 16, 20)), 12))
    atrium_right = placed(Ellipsoid((38, 2, -2), (22, 25, 30)))
    atrium = placed(Ellipsoid((4, -24, 8), (33, 20, 25), (0, 0, -8)))
    for shape in (ventricle, right, atrium_right, atrium):
        canvas.paint(shape, "fat", grow=3.5, over=("lung", "fat", "liver", "spleen"))
    canvas.paint(atrium_right, "blood", over=("fat", "vein"), ripple=rough(rng, 1.0))
    canvas.paint(right, "blood", over=("fat",), ripple=rough(rng, 1.0))
    for side in (-1.0, 1.0):
        for height in (-9.0, 10.0):
            path = ((side * 22 + 4, -26.0, 8 + height), (side * 58 + 4, -34.0, 14 + height * 1.4))
            vein = moved(rng, placed(Tube(path, (7.5, 6.0))), shift=3, turn=6)
            canvas.paint(vein, "blood", "left atrium", over=("fat", "lung"))
    canvas.paint(atrium, "blood", "left atrium", over=("fat", "lung"), ripple=rough(rng, 1.2))
