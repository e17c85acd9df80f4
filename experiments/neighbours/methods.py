"""What the two networks change in base.yaml: how many slices on either side they are given."""

METHODS = {
    "2-D": ["neighbours=0", "in_channel=3"],
    "2.5-D": ["neighbours=1", "in_channel=5"],
}
