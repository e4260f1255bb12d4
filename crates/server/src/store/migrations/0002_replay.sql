-- What a check saw beyond what the checks before it had seen.
ALTER TABLE checks ADD COLUMN seen TEXT;

-- Everything that the checks of a rollout under way have counted; gone when it is over.
CREATE TABLE check_watermark (
    rollout TEXT NOT NULL PRIMARY KEY,
    counted TEXT NOT NULL
);
