"""The formatter: meaning and comments unchanged, a second run changes nothing."""

import re

import mutate
import pytest
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.frontend.format import format_source
from ostinato.frontend.parse import parse


def check(text: str) -> str:
    out = format_source(text)
    assert parse(out).items == parse(text).items
    assert [c.text for c in parse(out).comments] == [c.text for c in parse(text).comments]
    assert format_source(out) == out
    return out


@pytest.mark.parametrize("text", mutate.corpus(), ids=lambda s: re.search(r"(cell|program) (\w+)", s).group(2))
def test_corpus(text):
    check(text)


@pytest.mark.parametrize("path", sorted(mutate.ZOO.glob("*.ost")), ids=lambda p: p.stem)
def test_the_zoo_is_formatted(path):
    assert format_source(path.read_text()) == path.read_text()


def test_mutated_programs_that_parse():
    kept = 0
    for seed in range(250):
        text = mutate.mutant(seed)
        try:
            parse(text)
        except OstinatoError:
            continue
        kept += 1
        check(text)
    assert kept > 60


def test_squeezed_and_stretched_programs():
    """Every blank removed, or doubled, where that leaves the tokens alone."""
    for text in mutate.corpus():
        squeezed = re.sub(r"(?<=[^\w\s])[ \t]+|[ \t]+(?=[^\w\s#])", "", text)
        stretched = re.sub(r"(?<=[-+*^~:,()\[\]{}])(?<!\de[-+])(?!\s)", "  ", re.sub(r"#[^\n]*", "", text))
        for variant in (squeezed, stretched):
            assert parse(check(variant)).items == parse(text).items


def test_layout():
    text = """
# first
cell a( H,I , dt = 1 )heads  N{   # head


  input x:[I]
  param W:[4*H,I],b:[H]=0 ~normal( 0,1/sqrt( H ) )
  state h:int[H]=0
  # own line
  y=-x[ t - 1 ]+2*W [ 0 ]   # one
  long_name=tanh(y,slope= 3)**"""
    text = text.replace("**", """^2 if  t==0 else ( a+
      b )   # two
  z,w=split(y,2)


  repeat j in 3{ state u:[]=0
   u[j]=u[ j-1 ]
  }

  output h,o:[H]=y
}
fn f(x:[A],e:[A]=0,k=1){
 d=x-e
 return d
}
fn g(x)=x derivative 1
""")
    assert check(text) == """\
# first
cell a(H, I, dt=1) heads N {  # head
  input  x: [I]
  param  W: [4*H, I], b: [H] = 0  ~ normal(0, 1/sqrt(H))
  state  h: int [H] = 0
  # own line
  y         = -x[t - 1]+2*W[0]  # one
  long_name = tanh(y, slope=3)^2 if t == 0 else (a +
      b)  # two
  z, w = split(y, 2)

  repeat j in 3 {
    state u: [] = 0
    u[j] = u[j-1]
  }

  output h, o: [H] = y
}

fn f(x: [A], e: [A] = 0, k=1) {
  d = x-e
  return d
}

fn g(x) = x  derivative 1
"""


def test_a_program_that_does_not_parse_is_refused():
    with pytest.raises(OstinatoError, match="E0105"):
        format_source("fn f(x) = x +\n")
