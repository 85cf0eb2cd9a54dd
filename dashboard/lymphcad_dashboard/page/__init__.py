"""The pages: widgets and where they stand. What they show and do is decided in the modules beside this package."""
