"""Dumps of wikis and of Stack Exchange."""

import bz2
import gzip
import io

import pytest
from corelm_data.html_markdown import markdown
from corelm_data.stack_exchange import StackExchange
from corelm_data.wiki_markup import plain_text
from corelm_data.wikipedia import WikipediaDump
from corelm_data.xml_dumps import elements
from pydantic import ValidationError
from reading import build, read

from corelm.errors import UserError
from corelm.kinds import Conversation, Message

SITE = """<siteinfo><sitename>Wikipedia</sitename><namespaces>
<namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">Datei</namespace>
<namespace key="14" case="first-letter">Kategorie</namespace></namespaces></siteinfo>"""


def _page(number, title, text, ns=0, extra="", model="wikitext"):
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>{number}</id>{extra}<revision><id>{number}</id>"
        f'<model>{model}</model><format>text/x-wiki</format><text xml:space="preserve">{text}</text></revision></page>'
    )


def _dump(path, *pages, site=SITE, tail="</mediawiki>"):
    content = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">{site}\n'
    content = (content + "\n".join(pages) + tail).encode()
    path.write_bytes({".bz2": bz2.compress, ".gz": gzip.compress}.get(path.suffix, bytes)(content))
    return str(path)


@pytest.mark.parametrize("ending", ["xml", "xml.bz2", "xml.gz"])
def test_articles_are_documents_and_the_rest_is_counted(ending, tmp_path):
    path = _dump(
        tmp_path / f"dewiki-pages-articles.{ending}",
        _page(
            1,
            "Katze",
            "Die '''Katze''' ist ein [[Tier]]. [[Datei:Katze.jpg|mini|Eine [[Katze]]]]\n[[Kategorie:Tiere]]",
        ),
        _page(2, "Kater", "#WEITERLEITUNG [[Katze]]", extra='<redirect title="Katze" />'),
        _page(3, "Diskussion:Katze", "Hallo", ns=1),
        _page(4, "Modul:X", "return 1", model="Scribunto"),
        _page(5, "Leer", ""),
        _page(6, "Hund &amp; Co", "1 &lt; 2 {{Vorlage|x}}"),
    )
    source = build(WikipediaDump, paths=[path])
    records = list(source.read())
    assert [record.text for record in records] == ["Katze\n\nDie Katze ist ein Tier.", "Hund & Co\n\n1 < 2"]
    assert records[1].name == f"wikipedia-dump: dewiki-pages-articles.{ending} page 6 Hund & Co"
    assert source.report.left_out == {"redirect": 1, "namespace": 1, "model": 1, "empty": 1}
    options = {"namespaces": [0, 1], "redirects": True, "markup": "keep", "title": False}
    texts = [record.text for record in read(WikipediaDump, paths=[path], **options)]
    assert texts[1:3] == ["#WEITERLEITUNG [[Katze]]", "Hallo"]
    assert texts[0].startswith("Die '''Katze'''")


def test_of_a_history_the_newest_revision_is_taken(tmp_path):
    page = "<page><title>A</title><ns>0</ns><id>1</id>{}</page>".format(
        "".join(f"<revision><id>{n}</id><text>version {n}</text></revision>" for n in range(5))
    )
    path = _dump(tmp_path / "a.xml", page, _page(2, "B", "other"))
    assert [record.text for record in read(WikipediaDump, paths=[path])] == ["A\n\nversion 4", "B\n\nother"]


def test_of_a_history_one_revision_is_held_and_pages_are_gone_after_their_turn():
    revisions = "".join(f"<revision><id>{n}</id></revision>" for n in range(9))
    pages = f"<page>{revisions}</page>" * 5
    for name, page in elements(io.BytesIO(f"<x>{pages}</x>".encode()), "page", newest="revision"):
        assert name == "page"
        assert [revision.findtext("id") for revision in page.findall("revision")] == ["8"]
        before = page.getprevious()
        assert before is None or (len(before) == 0 and before.getprevious() is None)


def test_wikitext_becomes_running_text():
    text = plain_text(
        "{{Infobox|a=b}}\n'''Paris''' is the [[capital city|capital]] of [[France]].<ref>x</ref>{{cn}}\n"
        "[[File:x.jpg|thumb|A [[cat]] here]]\n== History ==\n* one\n** two\n{| class=x\n| cell\n|}\n"
        "A [http://x.org site] and http://y.org &amp; more<br/>line<!-- c --> [[:Category:Cities]] <nowiki>[[x]]</nowiki>",
        frozenset({"file", "category"}),
    )
    assert text == (
        "Paris is the capital of France.\n\nHistory\n* one\n** two\n\n"
        "A site and http://y.org & more\nline Category:Cities [[x]]"
    )


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        (b"<mediawiki><page><title>A</title>", "not XML: .*line 1", "xml-broken"),
        (b"", "not XML", "xml-broken"),
        (b"<html><body/></html>", "it holds no pages", "other-format"),
        (b"<mediawiki><page>\xff</page></mediawiki>", "not XML: .*", "xml-broken"),
        (
            b"<mediawiki><page><text>" + b"x" * 10_000_100 + b"</text></page></mediawiki>",
            "more than is held at once: Resource limit exceeded: Text node too long, line 1",
            "xml-too-large",
        ),
    ],
)
def test_what_is_no_dump_is_named(content, message, code, tmp_path):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.xml: {message}") as caught:
        read(WikipediaDump, paths=[str(tmp_path)])
    assert caught.value.code == code


def test_a_dump_that_breaks_off_gives_what_came_before_only_where_that_is_wanted(tmp_path):
    path = _dump(tmp_path / "a.xml", _page(1, "A", "one"), _page(2, "B", "two"), tail="<page><title>C")
    source = build(WikipediaDump, paths=[path]).records()
    assert [next(source).text, next(source).text] == ["A\n\none", "B\n\ntwo"]
    with pytest.raises(UserError, match=r"a\.xml: not XML"):
        next(source)
    source = build(WikipediaDump, paths=[path], broken="skip")
    assert len(list(source.read())) == 2
    assert source.report.left_out == {"xml-broken": 1}


def test_no_entity_is_expanded_and_nothing_is_fetched(tmp_path):
    (tmp_path / "secret").write_text("SECRET", encoding="utf-8")
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol"}">' for n in range(10))
    head = f'<!DOCTYPE x [{bomb}<!ENTITY file SYSTEM "file://{tmp_path}/secret">]>'
    (tmp_path / "a.xml").write_text(
        f"{head}<mediawiki>{_page(1, 'A', '&e9;&file; word')}</mediawiki>", encoding="utf-8"
    )
    with pytest.raises(UserError, match="more than is held at once: .*entity"):
        read(WikipediaDump, paths=[str(tmp_path / "a.xml")])
    head = f'<!DOCTYPE x [<!ENTITY file SYSTEM "file://{tmp_path}/secret">]>'
    (tmp_path / "a.xml").write_text(
        f"{head}<mediawiki>{_page(1, 'A', 'a &file; word')}</mediawiki>", encoding="utf-8"
    )
    assert "SECRET" not in read(WikipediaDump, paths=[str(tmp_path / "a.xml")])[0].text


def _posts(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "\n".join(rows) + "\n</posts>"
    path.write_text(content, encoding="utf-8")
    return str(path)


ROWS = (
    '<row Id="1" PostTypeId="1" Score="3" Title="How?" Body="&lt;p&gt;How &lt;em&gt;so&lt;/em&gt;?&lt;/p&gt;" />',
    '<row Id="2" PostTypeId="2" ParentId="1" Score="1" Body="&lt;p&gt;Badly.&lt;/p&gt;" />',
    '<row Id="3" PostTypeId="2" ParentId="1" Score="9" Body="&lt;p&gt;Like this.&lt;/p&gt;" />',
    '<row Id="4" PostTypeId="1" Score="0" Title="Why?" Body="&lt;p&gt;Why?&lt;/p&gt;" />',
    '<row Id="5" PostTypeId="5" Body="a wiki" />',
    '<row Id="6" PostTypeId="2" ParentId="1" Score="9" Body="&lt;p&gt;Me too.&lt;/p&gt;" />',
)


def test_questions_come_with_their_answers_best_first(tmp_path):
    _posts(tmp_path / "cooking" / "Posts.xml", *ROWS)
    _posts(tmp_path / "cooking" / "Users.xml", '<row Id="1" />')
    source = build(StackExchange, paths=[str(tmp_path)])
    (record,) = source.read()
    assert record.text == "How?\n\nHow *so*?\n\nLike this.\n\nMe too.\n\nBadly."
    assert record.name == "stack-exchange: cooking/Posts.xml question 1"
    assert source.report.left_out == {"unanswered": 1}
    (record,) = read(StackExchange, paths=[str(tmp_path)], answers=1, least_score=2, body="html")
    assert record.text == "How?\n\n<p>How <em>so</em>?</p>\n\n<p>Like this.</p>"
    (record,) = read(StackExchange, paths=[str(tmp_path)], yields="conversation")
    assert isinstance(record, Conversation)
    assert record.messages == (Message("user", "How?\n\nHow *so*?"), Message("assistant", "Like this."))
    with pytest.raises(ValidationError, match="a conversation has the best answer alone"):
        StackExchange.Config(paths=["x"], yields="conversation", answers=2)


def test_broken_posts_are_named_or_counted(tmp_path):
    rows = (*ROWS, '<row Id="7" PostTypeId="2" Body="x" />', '<row Id="1" PostTypeId="1" Body="again" />')
    _posts(tmp_path / "Posts.xml", *rows)
    with pytest.raises(UserError, match=r"Posts\.xml row 7: a post without ParentId"):
        read(StackExchange, paths=[str(tmp_path)])
    source = build(StackExchange, paths=[str(tmp_path)], broken="skip")
    assert len(list(source.read())) == 1
    assert source.report.left_out == {"broken-row": 2, "unanswered": 1}
    _posts(tmp_path / "Posts.xml", '<comment Text="x" />')
    with pytest.raises(UserError, match=r"Posts\.xml: it holds no posts"):
        read(StackExchange, paths=[str(tmp_path)])
    _posts(tmp_path / "Posts.xml", *ROWS, "<row")
    with pytest.raises(UserError, match=r"Posts\.xml: not XML"):
        read(StackExchange, paths=[str(tmp_path)])
    source = build(StackExchange, paths=[str(tmp_path)], broken="skip")
    assert len(list(source.read())) == 1
    assert source.report.left_out == {"xml-broken": 1, "unanswered": 1}


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>a\nb</p>\n<p>c &amp; d</p>", "a b\n\nc & d"),
        (
            "<p>x</p><pre><code>def f():\n    return 1 &lt; 2\n</code></pre><p>y</p>",
            "x\n\n```\ndef f():\n    return 1 < 2\n```\n\ny",
        ),
        ("<p>use <code>x</code>, <strong>not</strong> <a href='u'>y</a></p>", "use `x`, **not** [y](u)"),
        ("<ul><li>a</li><li><p>b</p><p>c</p></li></ul>", "* a\n* b\n\n  c"),
        ("<ol><li>a</li><li>b</li></ol>", "1. a\n2. b"),
        ("<blockquote><p>a</p><p>b</p></blockquote><p>c</p>", "> a\n\n> b\n\nc"),
        ("<h2>T</h2><p>a<br>b</p><hr><img src='i.png' alt='pic'>", "## T\n\na\nb\n\n---\n\n![pic](i.png)"),
        ("<b>un<i>closed</p></li></ul></pre>", "**un*closed"),
        ("", ""),
    ],
)
def test_html_of_posts_becomes_markdown(html, expected):
    assert markdown(html) == expected
