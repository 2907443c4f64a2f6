"""The commands of `nas`: one file a noun, over `nas.client`."""
