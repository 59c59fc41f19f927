"""The verbs of the command line, one a file. Each has ``parser()`` and ``run(arguments) -> status``."""

COMMANDS = {
    "run": "your nginx: keep an nginx that somebody else runs in step with the images",
    "serve": "our nginx: serve a directory of images at once, with an nginx of its own",
    "generate": "one nginx file that serves a directory of images, without a daemon",
    "check": "what would be published, what not, and why",
    "status": "what the daemon serves now, and what it does not",
    "wait": "wait until an image can be pulled",
    "list": "every image, and the disk that it takes",
    "verify": "read every byte, and name each image that is rotten",
    "accept": "accept a held mass removal",
    "prune": "free the disk of what was replaced or removed",
    "completion": "what bash, zsh or fish completes",
    "manual": "the manual page",
}
