-- A refund that stands gives back what it took too much: a taking of which nothing is left goes.
GRANT DELETE ON points_takings TO everbill_app;
