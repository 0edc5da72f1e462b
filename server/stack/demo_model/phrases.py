"""The demo model's sentences in English and Russian, and the change from the user's "my" to "your"."""

import re
from dataclasses import dataclass

_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)
_LABELLED = re.compile(r"^User's (?P<what>[^:]+): (?P<value>.+)$", re.IGNORECASE)
_TO_USER = {
    "i am": "you are",
    "i was": "you were",
    "i'm": "you're",
    "i've": "you've",
    "i'll": "you'll",
    "i'd": "you'd",
    "i": "you",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
}
_FIRST_PERSON = re.compile(rf"\b(?:{'|'.join(re.escape(words) for words in _TO_USER)})(?!['\w])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Phrases:
    """The model's sentences in one language. `{}` is replaced by a fact."""

    language: str
    hello: str
    introduction: str
    remembered: str
    known_already: str
    not_saved: str
    no_memory: str
    from_memory: str
    from_conversation: str
    overview: str
    nothing_known: str
    unknown: str

    def greeting(self, name: str | None) -> str:
        """A greeting, with the user's name if it is known."""
        return f"{self.hello}, {name}!" if name else f"{self.hello}!"

    def to_user(self, fact: str) -> str:
        """A stored fact in the second person: "My cat is Tom" → "your cat is Tom"."""
        labelled = _LABELLED.match(fact)
        if self.language == "ru":
            if labelled and labelled["what"].casefold() == "name":
                return f"вас зовут {labelled['value']}"
            return fact[0].lower() + fact[1:]
        if labelled:
            return f"your {labelled['what'].lower()} is {labelled['value']}"
        turned = _FIRST_PERSON.sub(lambda match: _TO_USER[match[0].lower()], fact.replace("’", "'"))
        return turned if turned[:2].isupper() else turned[0].lower() + turned[1:]


ENGLISH = Phrases(
    language="en",
    hello="Hello",
    introduction=(
        "I am the demo model of this platform: a small program, not a language model, but my memory is real. "
        "Say “remember …” and ask me about it later."
    ),
    remembered="Done, I will remember: {}.",
    known_already="I know that already: {}.",
    not_saved="I tried to remember that, but the memory could not be changed. Please try again.",
    no_memory="I would like to remember that ({}), but I was offered no memory tool.",
    from_memory="From memory: {}.",
    from_conversation="You said earlier: “{}”.",
    overview="This is what I remember: {}.",
    nothing_known="I remember nothing about you yet.",
    unknown=(
        "I do not know that. I am only the demo model: I answer from what you asked me to remember. "
        "Set OPENAI_API_KEY to talk to a real one."
    ),
)

RUSSIAN = Phrases(
    language="ru",
    hello="Здравствуйте",
    introduction=(
        "Я демонстрационная модель этой платформы: небольшая программа, а не языковая модель, "
        "но память у меня настоящая. Скажите «запомни …» и спросите об этом позже."
    ),
    remembered="Готово, запомнил: {}.",
    known_already="Это я уже знаю: {}.",
    not_saved="Я попробовал это запомнить, но изменить память не удалось. Попробуйте ещё раз.",
    no_memory="Я бы запомнил это ({}), но мне не дали инструмента памяти.",
    from_memory="Помню, вы говорили: {}.",
    from_conversation="Раньше вы сказали: «{}».",
    overview="Вот что я помню: {}.",
    nothing_known="Пока я ничего о вас не помню.",
    unknown=(
        "Этого я не знаю. Я лишь демонстрационная модель и отвечаю по тому, что вы просили запомнить. "
        "Задайте OPENAI_API_KEY, чтобы говорить с настоящей."
    ),
)


def phrases_for(text: str) -> Phrases:
    """The phrases in the language of `text`."""
    return RUSSIAN if _CYRILLIC.search(text) else ENGLISH
