"""Which photographs the demo uses, where they come from, and what is done to make them small."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One photograph of a wheel and the file that is made of it."""

    name: str
    """File below ``media/photos``; its suffix is the format that it is saved in."""
    package: str
    source: str
    """Path inside the wheel."""
    title: str
    author: str
    licence: str
    origin: str
    """Where the wheel says that it has it from."""
    treatment: str = "scaled"
    """``scaled``; ``rotated``: stored lying with an EXIF orientation; ``alpha``: white made transparent."""


SKIMAGE = {"package": "scikit-image"}
SKLEARN = {"package": "scikit-learn", "licence": "CC-BY-2.0"}

PHOTOS = (
    Photo(
        **SKIMAGE,
        name="astronaut.jpg",
        source="skimage/data/astronaut.png",
        title="Astronaut Eileen Collins",
        author="NASA",
        licence="public domain",
        origin="NASA Great Images, https://flic.kr/p/r9qvLn",
    ),
    Photo(
        **SKIMAGE,
        name="chelsea.jpg",
        source="skimage/data/chelsea.png",
        title="Chelsea the cat",
        author="Stefan van der Walt",
        licence="CC0-1.0",
        origin="given to scikit-image by the photographer",
    ),
    Photo(
        **SKIMAGE,
        name="coffee.jpg",
        source="skimage/data/coffee.png",
        title="Coffee cup",
        author="Rachel Michetti",
        licence="CC0-1.0",
        origin="courtesy of Pikolo Espresso Bar",
        treatment="rotated",
    ),
    Photo(
        **SKIMAGE,
        name="rocket.jpg",
        source="skimage/data/rocket.jpg",
        title="Launch of DSCOVR on Falcon 9",
        author="SpaceX",
        licence="public domain",
        origin="https://www.flickr.com/photos/spacexphotos/16511594820/",
    ),
    Photo(
        **SKIMAGE,
        name="hubble.jpg",
        source="skimage/data/hubble_deep_field.jpg",
        title="Hubble eXtreme Deep Field",
        author="NASA",
        licence="public domain",
        origin="http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
    ),
    Photo(
        **SKIMAGE,
        name="clock.jpg",
        source="skimage/data/clock_motion.png",
        title="Motion blurred clock",
        author="Stefan van der Walt",
        licence="public domain",
        origin="given to scikit-image by the photographer",
    ),
    Photo(
        **SKIMAGE,
        name="horse.png",
        source="skimage/data/horse.png",
        title="Silhouette of a horse",
        author="Andreas Preuss (marauder)",
        licence="CC0-1.0",
        origin="http://openclipart.org/detail/158377/horse-by-marauder",
        treatment="alpha",
    ),
    Photo(
        **SKIMAGE,
        name="camera.jpg",
        source="skimage/data/camera.png",
        title="Photographer with a camera",
        author="Lav Varshney",
        licence="CC0-1.0",
        origin="given to scikit-image by the photographer",
    ),
    Photo(
        **SKIMAGE,
        name="text.png",
        source="skimage/data/text.png",
        title="Gray-level text image",
        author="unknown (Wikipedia)",
        licence="public domain",
        origin="https://en.wikipedia.org/wiki/File:Corner.png",
    ),
    Photo(
        **SKIMAGE,
        name="brick.jpg",
        source="skimage/data/brick.png",
        title="Brick wall",
        author="CC0Textures",
        licence="CC0-1.0",
        origin="https://cc0textures.com/view.php?tex=Bricks25",
    ),
    Photo(
        **SKIMAGE,
        name="grass.webp",
        source="skimage/data/grass.png",
        title="Grass",
        author="linolafett",
        licence="CC0-1.0",
        origin="https://www.deviantart.com/linolafett/art/Grass-01-434853879",
    ),
    Photo(
        **SKIMAGE,
        name="gravel.webp",
        source="skimage/data/gravel.png",
        title="Gravel",
        author="CC0Textures",
        licence="CC0-1.0",
        origin="https://cc0textures.com/view.php?tex=Gravel04",
    ),
    Photo(
        **SKIMAGE,
        name="retina.jpg",
        source="skimage/data/retina.jpg",
        title="Fundus photograph of a normal left eye",
        author="Mikael Häggström",
        licence="CC0-1.0",
        origin="https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg",
    ),
    Photo(
        **SKLEARN,
        name="china.jpg",
        source="sklearn/datasets/images/china.jpg",
        title="china.jpg (a temple in China)",
        author="danielbuechele",
        origin="https://www.flickr.com/photos/danielbuechele/6061409035/",
    ),
    Photo(
        **SKLEARN,
        name="flower.webp",
        source="sklearn/datasets/images/flower.jpg",
        title="flower.jpg (an orange flower)",
        author="vultilion",
        origin="https://www.flickr.com/photos/vultilion/6056698931/",
    ),
)
