"""Conversations of the dataset demo_photos: one bare image each, text members in every spelling that i4 allows."""

from dataclasses import replace

from conversations import DemoSample, about, assistant, picture, system, user


def one(file: str, *turns: str, name: str | None = None) -> DemoSample:
    """A sample on one photograph, named like its file."""
    return about(name or file.split(".")[0], f"photos/{file}", *turns)


def thoughtful(file: str, question: str, reasoning: str, answer: str) -> DemoSample:
    """A sample whose answer comes after a written thought."""
    messages = [user(question, picture(f"photos/{file}")), assistant(answer, reasoning=reasoning)]
    return DemoSample(name=f"{file.split('.')[0]}.thought", conversations=(messages,))


def budgeted(file: str, question: str, answer: str) -> DemoSample:
    """A sample with a pixel option on its image item and a system message."""
    media = picture(f"photos/{file}", max_pixels=65536)
    messages = [system("You describe photographs in one short sentence."), user(question, media), assistant(answer)]
    return DemoSample(name=f"{file.split('.')[0]}.small", conversations=(messages,))


TRAIN = (
    one(
        "astronaut.jpg", "Who is in the picture?", "A smiling astronaut in an orange space suit, her helmet beside her."
    ),
    one("chelsea.jpg", "Describe the animal.", "A ginger tabby cat with green eyes, seen from close by."),
    one("coffee.jpg", "What stands on the table?", "A cup of espresso on a red saucer, with a spoon."),
    replace(
        one("rocket.jpg", "What is about to happen?", "A Falcon 9 rocket waits on its pad for the launch."),
        i4_text="messages",
    ),
    one(
        "hubble.jpg",
        "What do the small lights show?",
        "Thousands of far galaxies, photographed by the Hubble telescope.",
    ),
    one("clock.jpg", "Why is it hard to read the time?", "The camera moved, so the wall clock is blurred."),
    one("horse.png", "Which animal is this?", "A horse.", "Which way does it look?", "To the right."),
    one("camera.jpg", "What is the man doing?", "He looks through a camera that stands on a tripod in a park."),
    one("text.png", "What is written on the tiles?", "Formulas, drawn by hand in dark strokes."),
    one("brick.jpg", "Which material is this?", "A wall of long grey bricks."),
    one("grass.webp", "Name the texture.", "Grass, in shades of grey."),
    one("gravel.webp", "Name the texture.", "Gravel: many small stones, in shades of grey."),
    one("retina.jpg", "What does a doctor see here?", "The back of an eye: the retina with its blood vessels."),
    replace(
        one("china.jpg", "What kind of building is it?", "A Chinese pagoda with several green roofs above a lake."),
        i4_text="messages",
    ),
    one("flower.webp", "Describe the blossom.", "A round orange dahlia in full bloom.", name="flower.closeup"),
    thoughtful("rocket.jpg", "Is it noon?", "The sky is dark blue and the lamps are on.", "No, it is dusk or dawn."),
    budgeted("chelsea.jpg", "Describe it.", "A tabby cat looks past the camera."),
)
