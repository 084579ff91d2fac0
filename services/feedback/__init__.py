"""The door for people and systems that know what an event turned out to be: labels over HTTP."""
