"""Model files: the catalogue, fetching and checking them, preparing fast types."""
