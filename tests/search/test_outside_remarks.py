"""What a search from outside zbench has to say reaches the user as what the built-in ones say."""

import pytest
from factories import complete, trial
from outside_code import Outside

from zbench.analysis.view import view_of
from zbench.config import SearchConfig
from zbench.errors import ConfigError
from zbench.search import Search, load_search, remarks_of
from zbench.space import arrange
from zbench.sweeper.news import News

TALKS = """
from zbench.search.grid import GridSearch
class Talks(GridSearch):
    told = 0
    @property
    def remarks(self):
        return ["it begins", *(f"trial {n}" for n in range(self.told))]
    def tell(self, record, figures):
        self.told += 1
class OneText(GridSearch):
    remarks = "one text"
class Numbers(GridSearch):
    remarks = [1, 2]
class Falls(GridSearch):
    @property
    def remarks(self):
        raise RuntimeError("lost for words")
class Asks(GridSearch):
    def remarks(self):
        return ["never read"]
class Silent(GridSearch): ...
"""


def made(name: str, outside: Outside) -> Search:
    outside.module("talks", TALKS)
    return load_search(SearchConfig(name="talks", target=f"talks:{name}"), arrange([trial()]), allow_code=True)


def test_all_of_it_is_said_once_what_it_has_at_the_start_too(outside: Outside) -> None:
    """A plan asks no search from outside, so nothing was said before."""
    search, said = made("Talks", outside), list[str]()
    news = News(search, lambda placed, reason: None, said.append)
    news.heed()
    record = complete(trial())
    search.tell(record, view_of([record]).trials[0])
    news.heed()
    news.heed()
    assert said == ["it begins", "trial 0"]


def test_what_the_plan_said_is_not_said_again(outside: Outside) -> None:
    said: list[str] = []
    News(made("Talks", outside), lambda placed, reason: None, said.append, ["it begins"]).heed()
    assert said == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("OneText", "OneText.remarks gave str, not"),
        ("Numbers", "Numbers.remarks gave list, not"),
        ("Falls", "Falls.remarks failed: RuntimeError: lost for words"),
        ("Asks", "Asks.remarks gave method, not"),
    ],
)
def test_remarks_that_are_none_are_one_error(name: str, says: str, outside: Outside) -> None:
    with pytest.raises(ConfigError, match=f"search.target=talks:{name}: {says}"):
        remarks_of(made(name, outside))


def test_a_search_need_not_say_anything(outside: Outside) -> None:
    assert list(remarks_of(made("Silent", outside))) == []
