FROM python:3.11-slim

WORKDIR /service
# Torch first and by itself: what depends on it would otherwise choose a build of its own.
RUN pip install --no-cache-dir torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY nas nas
COPY search_spaces search_spaces
COPY supernet supernet
COPY api api
COPY workers workers
COPY migrations migrations
RUN pip install --no-cache-dir .[worker]
