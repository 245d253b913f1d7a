"""What describes, builds and imitates the cloud. Never imported inside Lambda."""
