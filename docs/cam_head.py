"""Print the table of docs/cam-head.md, what a CAM head costs at each layer of the bundled net: run docs/cam_head.py.

The pictures are those of `whence interpretable cam-head creatures`. The last column says how often the place where
the map of a creature's own class is highest lies on a part that decides.
"""

import torch

import whence
from whence.creatures import draw_many
from whence.creatures.debugging import deciding_places
from whence.creatures.labelled import drawn
from whence.interpretable.cam_head import cam_head
from whence.interpretable.labelled import normalised

LAYERS = ("stem", "stages.0", "stages.1", "stages.2", "top")
TRAIN, HELD_OUT, SEEDS, POINTED = 4000, 1000, (2, 3), 200


def main() -> None:
    model = whence.load_model("creatures")
    train, held_out = drawn(TRAIN, SEEDS[0]), drawn(HELD_OUT, SEEDS[1])
    x, labels = normalised(held_out.pixels[:POINTED]), held_out.labels[:POINTED].tolist()
    deciding = deciding_places(list(draw_many(POINTED, SEEDS[1])))
    print("| layer | map | right | change | highest on a part that decides |")
    print("|---|---|---|---|---|")
    for layer in LAYERS:
        fitted = cam_head(model, train, held_out, layer)
        found = whence.attribute(
            whence.Classifier(fitted.module, model.preprocess), x, "cam", target=labels, layer=f"model.{layer}"
        )
        maps = torch.nn.functional.interpolate(found.values, size=(64, 64), mode="bilinear")
        highest = maps.flatten(1).argmax(1)
        pointed = deciding.flatten(1)[torch.arange(POINTED), highest].double().mean()
        kind = " x ".join(map(str, (fitted.module.form.filters, *found.values.shape[2:])))
        print(f"| {layer} | {kind} | {fitted.after:.1%} | {fitted.change:+.1%} | {pointed:.0%} |", flush=True)
    print(f"\nown head: {fitted.before:.1%} of {HELD_OUT}")


if __name__ == "__main__":
    main()
