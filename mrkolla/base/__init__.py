"""What every room uses: errors, files and locks, commands here and on hosts, the journal, the display, the cache.

Nothing here knows of regions or clouds.
"""
