"""First-party data parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corelm import hookimpl

if TYPE_CHECKING:
    from corelm.registration import Registrar

_PARTS: tuple[tuple[str, str, str, str], ...] = (
    ("source", "python-stdlib", "python_stdlib:PythonLibrary", "Python's own standard library as text"),
    (
        "source",
        "stdlib-docstrings",
        "stdlib_docstrings:LibraryDocstrings",
        "Questions and answers mined from the docstrings of Python's standard library",
    ),
    ("source", "text-files", "text_files:TextFiles", "Plain text files in UTF-8"),
    (
        "source",
        "markdown",
        "markdown:Markdown",
        "Markdown files as documents, as they are written but for what no reader sees",
    ),
    ("source", "code", "source_code:SourceCode", "Programs as documents, with their language and their licence"),
    ("source", "jsonl", "jsonl:JsonLines", "Records from files of JSON lines"),
    ("source", "parquet", "parquet:Parquet", "Records from Parquet files"),
    (
        "source",
        "csv",
        "tables:SeparatedValues",
        "Records from files of comma- or tab-separated values (RFC 4180)",
    ),
    ("source", "hugging-face", "hugging_face:HuggingFaceData", "Records read by the ``datasets`` library"),
    ("source", "classic", "classic_corpora:ClassicCorpus", "A corpus that the field trains on, by its name"),
    ("source", "warc", "common_crawl:CommonCrawl", "Pages out of WARC files, as HTML"),
    (
        "source",
        "wet",
        "common_crawl:CommonCrawlText",
        "Texts out of WET files, in which Common Crawl publishes what is left of pages without their markup",
    ),
    (
        "source",
        "wikipedia-dump",
        "wikipedia:WikipediaDump",
        "Pages of the XML dumps of Wikipedia and other wikis (pages-articles.xml.bz2)",
    ),
    (
        "source",
        "stack-exchange",
        "stack_exchange:StackExchange",
        "Questions with their answers, out of the file Posts.xml of Stack Exchange's dumps",
    ),
    ("source", "mixture", "mixture:Mixture", "Several sources, whose records take turns in given shares"),
    (
        "cleaner",
        "unicode-nfc",
        "unicode_nfc:UnicodeNormalisation",
        "Rewrites documents in a Unicode normalisation form",
    ),
    ("cleaner", "exact-dedup", "exact_dedup:ExactDeduplication", "Drops documents whose text has come before"),
    (
        "cleaner",
        "near-dedup",
        "near_dedup:NearDeduplication",
        "Drops documents that are nearly the same as one that was kept before",
    ),
    (
        "cleaner",
        "unicode-repair",
        "unicode_repair:UnicodeRepair",
        "Rewrites documents whose characters were decoded wrongly, by the library ftfy",
    ),
    ("cleaner", "html-text", "html_text:HtmlText", "Rewrites documents that are web pages as their main text"),
    ("cleaner", "language", "language:LanguageChoice", "Keeps documents in some languages, or drops those in some"),
    (
        "cleaner",
        "gopher-quality",
        "gopher_quality:GopherQuality",
        "Drops documents that look like no prose, by the rules of Gopher",
    ),
    (
        "cleaner",
        "gopher-repetition",
        "gopher_repetition:GopherRepetition",
        "Drops documents that repeat themselves, by the rules of Gopher",
    ),
    (
        "cleaner",
        "c4-quality",
        "c4_quality:C4Quality",
        "Drops documents and lines that are no natural text, by the rules of C4",
    ),
    (
        "cleaner",
        "c4-dedup",
        "c4_dedup:C4Deduplication",
        "Takes sentences out of documents that have come before, by the rule of C4",
    ),
    (
        "cleaner",
        "scrub-personal-data",
        "scrub_personal_data:PersonalData",
        "Replaces personal data and secrets by placeholders such as [e-mail]",
    ),
    (
        "cleaner",
        "decontaminate",
        "decontaminate:Decontamination",
        "Drops documents that share runs of words with evaluation sets, or cuts these runs out",
    ),
    ("template", "plain", "plain:PlainTemplate", "Conversations as headed paragraphs of text"),
    ("template", "chatml", "chatml:ChatTemplate", "Conversations with a pair of special tokens around each turn"),
    ("packer", "blocks", "blocks:Blocks", "Documents one after the other, cut into full rows"),
    ("packer", "best-fit", "best_fit:BestFit", "Whole documents, as many as fit into each row"),
    ("packer", "padded", "padded:Padded", "Whole documents in rows of their own, padded on the right"),
)


@hookimpl
def corelm_register(registry: Registrar) -> None:
    """Register this package's parts."""
    for kind, name, target, summary in _PARTS:
        registry.add(kind, name, f"corelm_data.{target}", summary=summary)
