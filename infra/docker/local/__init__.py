"""Images of the servers, built on this machine from Debian and the locked jars, where none can be pulled.

They take the same environment variables and keep the same paths as the public ones, so that docker-compose.yml and
testcontainers cannot tell them apart.
"""
