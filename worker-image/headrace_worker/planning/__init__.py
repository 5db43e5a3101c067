"""What `plan` does: it looks at the whole input once, and cuts it into shards or says all that is wrong with it.

- `plan` is the role; `survey` goes through the records, by themselves or in parts
- `customids` and `problems` hold what was seen and what is wrong, whatever the size of the input; `partsfile` the parts of images
- `carried` finds the records that an earlier run has left without a result
"""
