"""Conversations of the dataset demo_video: videos, several images, both together, and text alone."""

from conversations import DemoSample, Message, assistant, film, picture, system, user

WAKES = "video/bunny_wakes.mp4"
STRETCHES = "video/bunny_stretches.mp4"


def sample(name: str, *messages: Message, i4_text: str = "list") -> DemoSample:
    """One sample without alternatives."""
    return DemoSample(name=name, conversations=(list(messages),), i4_text=i4_text)


def drawings(*names: str) -> list[dict[str, str]]:
    """Image items of several drawings."""
    return [picture(f"clipart/{name}.png") for name in names]


TRAIN = (
    sample(
        "bunny_wakes",
        user("Describe the video.", film(WAKES)),
        assistant("A big grey rabbit crawls out of its burrow under a mossy hill and stands up."),
    ),
    sample(
        "bunny_stretches",
        user("What does the rabbit do?", film(STRETCHES)),
        assistant("It stretches its arms in front of its burrow and then lets them hang."),
    ),
    sample(
        "bunny_place",
        user("Where does this happen?", film(WAKES, fps=2)),
        assistant("On a green meadow beside trees."),
        user("Is it an animation?"),
        assistant("Yes, a scene from Big Buck Bunny."),
    ),
    sample(
        "bunny_colour",
        system("Answer with one word."),
        user("Which colour is the fur?", film(STRETCHES)),
        assistant("Grey."),
    ),
    sample(
        "drawing_and_film",
        user("Are these the same animal?", picture("clipart/bunny.png"), film(WAKES)),
        assistant("Both are rabbits: a pink drawing and a grey cartoon figure."),
    ),
    sample(
        "apple_or_bananas",
        user("Which fruit is red?", *drawings("apple", "bananas")),
        assistant("The apple in the first image; the bananas are yellow."),
    ),
    sample(
        "two_insects",
        user("Compare the two insects.", *drawings("bee", "ladybug")),
        assistant("The first is a striped yellow bee, the second a spotted red ladybug."),
    ),
    sample(
        "houses",
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "First image:"},
                picture("clipart/small_house.png"),
                {"type": "text", "text": "Second image:"},
                picture("clipart/big_house.png"),
                {"type": "text", "text": "Which one has more windows?"},
            ],
        },
        assistant("The second: it is a tall block with many yellow windows."),
    ),
    sample(
        "lollipops",
        user("Name the colours in order.", *drawings("red_lollipop", "green_lollipop", "red_lollipop")),
        assistant("Red, green, red."),
    ),
    sample("capital", user("What is the capital of Norway?"), assistant("Oslo.")),
    sample(
        "water",
        system("You are a concise science tutor."),
        user("At what temperature does water boil at sea level?"),
        assistant("At 100 degrees Celsius."),
        user("And higher up?"),
        assistant("At a lower temperature, because the air pressure is lower."),
    ),
    sample(
        "sum",
        user("What is 17 + 25?"),
        assistant("42.", reasoning="17 + 20 is 37, and 5 more make 42."),
    ),
    sample("planets", user("Which planet is the largest?"), assistant("Jupiter."), i4_text="conversations"),
    sample("languages", user("Translate 'Guten Morgen, schöne Welt'."), assistant("Good morning, beautiful world.")),
)
