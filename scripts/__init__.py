"""Thin commands, one for each rule: parse, one library call, write, one summary line."""
