"""The numbers and the figure of docs/saturation.md: `python docs/saturation.py`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

import whence

FIGURE = Path(__file__).parent / "figures" / "saturation.png"
LENGTHS = (0.5, 1.0, 1.5, 2.0)
# Twice as large as it is shown, so that its lines are smooth.
SIZE, LEFT, RIGHT, TOP, BOTTOM = (1360, 840), 130, 40, 40, 130
LOW, HIGH = -0.4, 1.1
COLOURS = {"score": "#8a8a8a", "gradient": "#d1602b", "Integrated Gradients": "#1f5fa8"}


class Elephant(nn.Module):
    """The score of an elephant: it grows with the trunk's length in metres, and is flat above one metre."""

    def __init__(self) -> None:
        super().__init__()
        self.without = nn.Parameter(torch.tensor(-0.25, dtype=torch.float64))

    def forward(self, length: Float[Tensor, "b 1 1 1"]) -> Float[Tensor, "b 1"]:
        t = length.flatten(1)
        return self.without + t + nn.functional.logsigmoid(20 * (1 - t)) / 20


def explained(lengths: Sequence[float], steps: int = 2187) -> dict[str, Float[Tensor, " b"]]:
    """Return the score, its gradient and Integrated Gradients from 0, for each length."""
    model = whence.Classifier(Elephant(), activation="sigmoid", name="elephant")
    x = torch.tensor(lengths, dtype=torch.float64).reshape(-1, 1, 1, 1)
    gradient = whence.attribute(model, x, "gradient")
    integrated = whence.attribute(model, x, "integrated-gradients", rule="midpoint", steps=steps, tol=1e-7)
    return {
        "score": gradient.score,
        "gradient": gradient.values.flatten(),
        "Integrated Gradients": integrated.values.flatten(),
    }


def table() -> str:
    """Return the numbers as lines of text."""
    made = explained((0.0, *LENGTHS))
    lines = ["length  F(length)  gradient  Integrated Gradients  F(length) - F(0)"]
    for i, length in enumerate(LENGTHS, start=1):
        score, gradient, integrated = (float(values[i]) for values in made.values())
        lines.append(
            f"{length:4.1f} m  {score:9.6f}  {gradient:8.6f}  {integrated:20.6f}  "
            f"{score - float(made['score'][0]):16.6f}"
        )
    return "\n".join(lines)


def figure() -> Image.Image:
    """Return the three curves in one plot."""
    canvas = Image.new("RGB", SIZE, "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(28)

    def place(t: float, y: float) -> tuple[float, float]:
        width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM
        return LEFT + t / 2 * width, TOP + (HIGH - y) / (HIGH - LOW) * height

    _axes(pen, font, place)
    lengths = [i / 100 for i in range(201)]
    for row, (name, values) in enumerate(explained(lengths, steps=243).items()):
        points = [place(t, y) for t, y in zip(lengths, values.tolist(), strict=True)]
        pen.line(points, fill=COLOURS[name], width=6, joint="curve")
        x, y = place(1.2, 0.62 - 0.1 * row)
        pen.line([(x, y), (x + 60, y)], fill=COLOURS[name], width=6)
        pen.text((x + 76, y), name, fill="#222222", font=font, anchor="lm")
    return canvas.resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.LANCZOS)


def _axes(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    place: Callable[[float, float], tuple[float, float]],
) -> None:
    for y in (0.0, 0.5, 1.0):
        pen.line([place(0, y), place(2, y)], fill="#dddddd", width=2)
        pen.text((LEFT - 16, place(0, y)[1]), f"{y:.1f}", fill="#222222", font=font, anchor="rm")
    for t in (0.0, 0.5, 1.0, 1.5, 2.0):
        pen.line([place(t, LOW), place(t, LOW + 0.03)], fill="#222222", width=2)
        pen.text((place(t, LOW)[0], place(t, LOW)[1] + 12), f"{t:.1f}", fill="#222222", font=font, anchor="ma")
    pen.line([place(0, LOW), place(2, LOW)], fill="#222222", width=2)
    pen.line([place(0, LOW), place(0, HIGH)], fill="#222222", width=2)
    pen.text(
        (place(1, LOW)[0], SIZE[1] - 60), "length of the trunk in metres", fill="#222222", font=font, anchor="ma"
    )


if __name__ == "__main__":
    print(table())
    figure().save(FIGURE, optimize=True)
