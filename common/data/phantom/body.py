"""What the phantom's regions share: tissues, structures, random poses and the trunk with its spine and ribs.

Template coordinates are mm, x towards the patient's right, y anterior, z superior; the body is a slim one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .shapes import Canvas, Placed, Points, Shape, Tube, Waves

__all__ = ["STRUCTURES", "TISSUES", "moved", "radial", "rough", "trunk", "within"]

TISSUES = [
    "air",
    "fat",
    "muscle",
    "bone",
    "marrow",
    "disc",
    "fluid",
    "cord",
    "lung",
    "liver",
    "spleen",
    "cortex",
    "medulla",
    "artery",
    "vein",
    "vessel",
    "wall",
    "lumen",
    "gas",
    "pancreas",
    "bile",
    "bowel",
    "node",
    "cyst",
    "tumour",
    "blood",
    "myocardium",
    "scar",
]
STRUCTURES = (
    "liver",
    "spleen",
    "left kidney",
    "right kidney",
    "aorta",
    "gallbladder",
    "pancreas",
    "liver tumour",
    "left atrium",
    "left ventricle",
    "myocardium",
    "scar",
)
Vector = tuple[float, float, float]


def moved(rng: np.random.Generator, shape: Shape, *, shift: float, scale: float = 0.1, turn: float = 10.0) -> Placed:
    """The shape with a random pose around its own centre: mm, relative, degrees."""
    x, y, z = (float(v) for v in rng.uniform(-shift, shift, size=3))
    a, b, c = (float(v) for v in rng.uniform(-turn, turn, size=3))
    return Placed(shape, shape.bounds()[0], (x, y, z), float(1 + rng.uniform(-scale, scale)), (a, b, c))


def rough(rng: np.random.Generator, amplitude: float, wavelength: tuple[float, float] = (22.0, 60.0)) -> Waves:
    """Roughness of a surface: standard deviation and range of wavelengths in mm."""
    return Waves.draw(rng, count=5, wavelength=wavelength, amplitude=amplitude)


def within(rng: np.random.Generator, low: Vector, high: Vector) -> Vector:
    """A uniformly drawn position in a box (mm)."""
    x, y, z = (float(v) for v in rng.uniform(low, high))
    return x, y, z


def radial(points: Points, width: float, depth: float) -> NDArray[np.float32]:
    """0 on the body's axis, 1 on the skin (a superellipse across the axis)."""
    p = np.float32(2.3)
    sides = np.abs(points[0] / np.float32(width)) ** p + np.abs(points[1] / np.float32(depth)) ** p
    return np.asarray(sides ** (1 / p), dtype=np.float32)


def trunk(canvas: Canvas, rng: np.random.Generator, width: float, depth: float, fat: float) -> NDArray[np.float32]:
    """Skin, fat, muscle wall, ribs, spine; returns the radial coordinate with the inside below ``1 - fat - 0.1``."""
    x, y, z = canvas.points
    rho = radial(canvas.points, width, depth) + rough(rng, 0.008, (60.0, 150.0))(canvas.points)
    canvas.fill(rho < 1, "fat")
    canvas.fill(rho < 1 - fat, "muscle")
    ribs = (np.abs(rho - (1 - fat - 0.05)) < 0.035) & (np.mod(z + 0.45 * y + rng.uniform(0, 30), 30) < 9)
    canvas.fill(ribs & (z > -25) & (np.abs(x) > 14), "bone")
    canvas.fill(rho < 1 - fat - 0.1, "fat")
    back = depth * -0.46
    for side in (-1.0, 1.0):
        canvas.paint(Tube(((side * 30, back - 28, -150), (side * 30, back - 28, 150)), (17, 17)), "muscle")
    spine = Tube(((0, back, -150), (0, back, 150)), (20, 20))
    canvas.paint(spine, "bone")
    canvas.paint(spine, "marrow", grow=-3.0)
    level = np.mod(z + rng.uniform(0, 34), 34)
    index = canvas.near(spine)
    discs = index[(spine.field(canvas.points[:, index]) < 0) & (level[index] < 7)]
    canvas.fill(discs, "disc")
    canvas.paint(Tube(((0, back - 28, -150), (0, back - 28, 150)), (12, 12)), "bone")
    process = index[(np.abs(x[index]) < 4) & (y[index] < back - 26) & (y[index] > back - 52) & (level[index] > 12)]
    canvas.fill(process, "bone")
    for side in (-1.0, 1.0):
        wing = Tube(((side * 12, back - 24, 0), (side * 34, back - 22, 0)), (5, 3))
        near = canvas.near(wing, margin=150)
        flat = canvas.points[:, near].copy()
        flat[2] = np.mod(flat[2], 34) - 17
        canvas.fill(near[wing.field(flat) < 0], "bone")
    canvas.paint(Tube(((0, back - 28, -150), (0, back - 28, 150)), (8, 8)), "fluid")
    canvas.paint(Tube(((0, back - 28, -150), (0, back - 28, 150)), (4, 4)), "cord")
    return rho
