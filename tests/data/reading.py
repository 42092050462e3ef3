"""Short ways to build and read a source."""


def build(part, /, **options):
    return part(part.Config(**options))


def read(part, /, **options):
    return list(build(part, **options).records())
