"""A report on clusters of maps, for tests of its page."""

import numpy as np

from whence.reports.debugging_results import Check, Cluster, DebuggingReport, Look, Repair, Shot, Trial

GUILTY = Check(40, changed=0.8, lost=1.0, elsewhere=0.05, alike=0.5)
HARMLESS = Check(40, changed=0.3, lost=0.4, elsewhere=0.38, alike=0.6)
MOVING = Check(40, changed=0.9, lost=0.9, elsewhere=0.1, alike=0.02)
WEAK = Check(40, changed=0.3, lost=0.3, elsewhere=0.05, alike=0.3)


def cluster(check, said=(("cat", 30), ("dog", 10)), accuracy=0.975):
    return Cluster(
        pictures=sum(count for _, count in said),
        said=said,
        accuracy=accuracy,
        extent=0.12,
        inside=0.93,
        area=0.15,
        check=check,
    )


def look(said="cat", shots=3, seed=0):
    generator = np.random.default_rng(seed)
    heat = generator.random((4, 4))
    pixels = generator.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    made = (
        Shot(f"{said}-{n}.png", said, "dog" if n == 1 else None, pixels, heat, (2, 3, 10, 12) if n else (0, 0, 0, 0))
        for n in range(shots)
    )
    return Look(heat / heat.sum(), pixels, tuple(made))


def report(said="cat", checks=(GUILTY, HARMLESS), repaired=True, **changed):
    repair = Repair(380, 400, {"Epochs": "5"}, (Trial("own tag", 500, 1.0, 0.98), Trial(said, 500, 0.02, 0.9)))
    made = {
        "whence": "0.1",
        "model": said,
        "method": said,
        "pictures": 90,
        "clustered": 60,
        "without_map": 10,
        "clusters": tuple(cluster(check, ((said, 30), ("dog", 10))) for check in checks),
        "looks": tuple(look(said, seed=n) for n, _ in enumerate(checks)),
        "members": tuple(((f"{said}-{n}.png", (0, 1, 2, 3)),) for n, _ in enumerate(checks)),
        "facts": {"Pictures": said},
        "repair": repair if repaired else None,
    }
    return DebuggingReport(**{**made, **changed})
