"""The whole pipeline live on this machine, watched for as long as it runs."""
