"""The commands of `fedcell-device`, by subject. Each module adds its parsers and runs them late.

What a command needs beyond the parser is imported when it runs, so that none pays for another.
"""
