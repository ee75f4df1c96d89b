"""Conversations of the dataset demo_clipart: 37 for training, 6 for validation."""

from conversations import DemoSample, about, assistant, captioned, picture, system, user

TITLE = "Give the title and the keywords of this drawing."
CATALOGUE = "How does the clip art library describe this picture?"


def one(name: str, *turns: str) -> DemoSample:
    """A sample on the drawing of the same name."""
    return about(name, f"clipart/{name}.png", *turns)


def alternatives(name: str, *pairs: tuple[str, str]) -> DemoSample:
    """A sample with several wordings of one conversation."""
    media = picture(f"clipart/{name}.png")
    return DemoSample(name=name, conversations=tuple([user(ask, media), assistant(tell)] for ask, tell in pairs))


def with_system(name: str, instruction: str, question: str, answer: str) -> DemoSample:
    """A sample that begins with a system message."""
    messages = [system(instruction), user(question, picture(f"clipart/{name}.png")), assistant(answer)]
    return DemoSample(name=name, conversations=(messages,))


TRAIN = (
    captioned("apple", TITLE),
    captioned("apple_juice", TITLE),
    captioned("burrito", TITLE),
    captioned("camel", TITLE),
    captioned("corn_dog", CATALOGUE),
    captioned("fried_eggs", TITLE),
    captioned("ice_cream", CATALOGUE),
    captioned("milk", TITLE),
    captioned("muffin", CATALOGUE),
    captioned("microphone", TITLE),
    captioned("piano_keys", CATALOGUE),
    captioned("pop_can", TITLE),
    one("bananas", "Which fruit is this?", "A bunch of ripe yellow bananas."),
    one("bass_clef", "Which musical sign stands on the staff?", "A bass clef, also called the F clef."),
    one("battery", "What is drawn here?", "A small battery, orange at the top and dark at the bottom."),
    one("bee", "Describe the insect.", "A cartoon bee with yellow and black stripes and a smiling face."),
    one("big_house", "What kind of building is this?", "A tall grey block with yellow windows and one door."),
    one("bunny", "What colour is the rabbit?", "Pink.", "And the background?", "Dark green."),
    one("camera", "Name the object.", "A simple green camera with a round black lens."),
    one("candy_cane", "Which sweet is this?", "A candy cane with red and white stripes."),
    one("dice", "How many faces of a die are shown?", "Six, with one to six dots from left to right."),
    one("dog", "Which animal looks at us?", "A dog with hanging ears and its tongue out."),
    one("dolphin", "Is this a fish?", "No, a dolphin: a mammal that lives in the sea."),
    one("elephant", "Which animal has this outline?", "An elephant, drawn as a black silhouette."),
    one("flask", "What is in the flask?", "A dark blue liquid.", "Where would you find it?", "In a chemistry lab."),
    one("grasshopper", "What is the green insect called?", "A grasshopper."),
    one("house", "Which colours has the house?", "An orange roof and blue walls.", "How many houses?", "Only one."),
    one("kangaroo", "Where does this animal live in the wild?", "In Australia: it is a kangaroo."),
    one("orange_wedge", "What is this a slice of?", "An orange, cut into a wedge with its peel on."),
    alternatives(
        "ladybug",
        ("Describe the bug.", "A red ladybug with black spots, a black head and black legs."),
        ("What colour are its wings?", "Red with black spots."),
        ("Name this beetle.", "A ladybug."),
    ),
    alternatives(
        "palm",
        ("Which plant is this?", "A palm tree in plain black."),
        ("Describe the silhouette.", "A tall palm with a crown of long leaves."),
    ),
    alternatives(
        "pencil",
        ("What can you write with here?", "With an orange pencil that has a pink eraser."),
        ("Which tool is drawn?", "A sharpened pencil, pointing down to the right."),
    ),
    with_system("padlock", "Answer with one word.", "Which metal does this look like?", "Brass."),
    with_system("pig", "Answer with one word.", "Which farm animal is this?", "Pig."),
    with_system("sailor_monkey", "You write alt texts for a web page.", "Alt text, please.", "Monkey in a sailor hat."),
    with_system("spider", "You are a patient biology teacher.", "How many legs has it?", "Eight, as every spider."),
    with_system("pizza", "You write menus.", "What shall I call this dish?", "Pepperoni pizza, by the slice."),
)

VALIDATION = (
    captioned("toque", TITLE),
    captioned("recycling_box", CATALOGUE),
    one("giraffe", "Which animal has this outline?", "A giraffe with its long neck."),
    one("palette", "Who uses this?", "A painter: it is a palette with spots of paint."),
    one("pen", "What is drawn here?", "A blue fountain pen with a golden nib."),
    one("seal", "Which animal is this?", "A young grey seal."),
)
