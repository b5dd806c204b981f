"""Streaming: responses as events, written by one writer per process, followed from anywhere."""
